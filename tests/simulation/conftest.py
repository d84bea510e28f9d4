"""Systems for histories."""

from collections.abc import Callable, Iterator

import pytest

from segrelay.ops.embedded import EmbeddedRedis
from tests.simulation.system import System, systems


@pytest.fixture(scope="session")
def make_system(
    valkey: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., System]]:
    with systems(valkey.url, tmp_path_factory.mktemp("simulation")) as make:
        yield make

"""What a worker's process does with its garbage, and what it does not drain."""

import gc
import weakref
from contextlib import closing
from pathlib import Path

import pytest

from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import UsageWrong
from segrelay.worker.node.loading import load
from segrelay.worker.node.runtime import Runtime
from tests.configuration import endpoint, settings_in, trigger


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    tables = endpoint("d"), trigger("t", destination="d")
    return settings_in(tmp_path, *tables, redis=redis_url)


def is_collected(settings: Settings, *, in_worker: bool) -> bool:
    loaded = load(settings, lambda question: question())
    gc.disable()
    try:
        with closing(Runtime(settings, loaded if in_worker else None)) as runtime:
            garbage = weakref.ref(Knot())
            runtime.drain("d", 0, Stop())
            return garbage() is None
    finally:
        gc.enable()


def test_a_worker_collects_its_garbage_after_each_drain_and_nobody_else(settings: Settings):
    assert is_collected(settings, in_worker=True)
    assert not is_collected(settings, in_worker=False)


@pytest.mark.parametrize(("name", "number", "why"), [("e", 0, "known are: d"), ("d", 99, "0 to")])
def test_what_the_configuration_does_not_name_is_not_drained(settings, name, number, why):
    loaded = load(settings, lambda question: question())

    with closing(Runtime(settings, loaded)) as runtime, pytest.raises(UsageWrong, match=why):
        runtime.drain(name, number, Stop())

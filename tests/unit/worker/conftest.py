"""Worlds for drains, closed at the end of each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.unit.worker.drain_world import World


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:

        def make(*args: Any, **options: Any) -> World:
            return stack.enter_context(World(*args, **options))

        yield make

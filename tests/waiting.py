"""Waiting for something to be true, which fails when its time is over.

Times are meant for a machine that runs nothing beside our tests. They grow with its load, so that
whatever else runs there fails no test.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_SHARE_OF_LOOKS = 0.1
"""The part of a wait that is spent on looks: what is waited for needs the processor more."""
_USUAL_LOAD = 3
"""Processes that want to run for each processor while `make test` has the machine for itself."""
_MOST_PATIENCE = 10
"""A failing test has to end as well."""


def until(condition: Callable[[], T], seconds: float = 30.0, *, else_show: Path | None = None) -> T:
    """Wait until a condition is true, and return what it yields.

    Args:
        condition: Asked again and again; one that takes long to answer, less often.
        seconds: The most that it takes on a quiet machine, see `allowed`. Generous by default: a
            test that passes does not wait.
        else_show: A log whose end is shown when the time is over.
    """
    begun = time.monotonic()
    while True:
        asked = time.monotonic()
        found = condition()
        if found:
            return found
        answered = time.monotonic()
        if answered - begun >= allowed(seconds):
            raise AssertionError(_too_late(condition, seconds, found, else_show))
        pause = (answered - asked) / _SHARE_OF_LOOKS
        time.sleep(min(max(_LOOK_SECONDS, pause), _LONGEST_PAUSE_SECONDS))


def allowed(seconds: float) -> float:
    """Return how many seconds something may take that takes at most so many on a quiet machine.

    Beside other tests it takes three times as long; what such a test is written for takes longer.
    """
    return 3 * patient(seconds)


def patient(seconds: float, load: float | None = None) -> float:
    """Return a time that is enough beside our other tests, lengthened by whatever else runs.

    Args:
        seconds: The time without anything else.
        load: Processes that want to run; by default the machine's, over the last minute.
    """
    wanting = os.getloadavg()[0] if load is None else load
    strain = wanting / (_USUAL_LOAD * (os.cpu_count() or 1))
    return seconds * min(max(1.0, strain), _MOST_PATIENCE)


def _too_late(condition: Callable[[], T], seconds: float, found: T, log: Path | None) -> str:
    code = getattr(condition, "__code__", None)
    partition = f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else repr(condition)
    said = f"What {partition} waits for did not come in {seconds:g} s; it is {found!r}."
    return f"{said}\n{log.read_text()[-2_000:]}" if log else said

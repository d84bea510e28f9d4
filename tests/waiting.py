"""Waiting for something to be true, which fails when its time is over."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.03


def until(condition: Callable[[], T], seconds: float = 30.0, *, else_show: Path | None = None) -> T:
    """Wait until a condition is true, and return what it yields.

    Args:
        condition: Asked again and again; one that takes long to answer, less often.
        seconds: How long it may take. Generous by default: who passes does not wait.
        else_show: A log whose end is shown when the time is over.
    """
    end = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        found = condition()
        if found:
            return found
        answered = time.monotonic()
        if answered >= end:
            raise AssertionError(_too_late(condition, seconds, found, else_show))
        time.sleep(max(_LOOK_SECONDS, answered - asked))


def allowed(seconds: float) -> float:
    """Return how many seconds something may take that takes at most so many on a quiet machine.

    Beside other tests it takes three times as long; what such a test is written for takes longer.
    """
    return 3 * seconds


def _too_late(condition: Callable[[], T], seconds: float, found: T, log: Path | None) -> str:
    code = getattr(condition, "__code__", None)
    place = f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else repr(condition)
    said = f"What {place} waits for did not come in {seconds:g} s; it is {found!r}."
    return f"{said}\n{log.read_text()[-2_000:]}" if log else said

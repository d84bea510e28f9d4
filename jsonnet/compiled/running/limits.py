"""Limits on the evaluation of an event, and the exceptions that end it without a value.

Everything else that is raised means that the compiled form does not know: Jsonnet is asked.
"""

from __future__ import annotations

import sys
from typing import Final

STEPS: Final = 1_000_000
"""The steps that one event may take: elements of arrays, and calls at `A_CALL` each.

About 0.1 s; so all events of a group may take it before the group's limit ends the process."""
A_CALL: Final = 25
"""The steps of one function call, which takes 25 times as long as making an element."""
A_TURN: Final = 10
"""The steps of one turn of a comprehension."""
MAX_TEXT: Final = 50_000_000
"""The largest number of characters of one string: ten times as many as a request may have."""
FRAMES: Final = 5_000
"""The limit on recursion, in Python frames: some ten for each of the 500 nested calls that rjsonnet
allows, and less than what fills the C stack of a thread."""


class Doubtful(Exception):  # noqa: N818 - no error: a question for the engine of record
    """Only an engine can tell the result; raised on purpose to leave the event to it.

    Args:
        why: The need for the engine, in words that hold nothing of the event.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class AssertFailed(Exception):  # noqa: N818 - the template's own word
    """An `assert` of the template failed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Exhausted(Exception):  # noqa: N818 - the event's fate, no error of ours
    """The evaluation does not end, or takes more time or memory than one event may.

    It is never handed on: what does not end here may kill the engine there.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


FAILED: Final = "an assert that fails inside of an expression"
"""The reason to leave an event to Jsonnet, which may meet another fault before the `assert`."""
ENDLESS: Final = "endless recursion: stack overflow"
TOO_LONG: Final = "the evaluation takes too many steps: an endless loop"
TOO_LARGE: Final = "a value is too large for memory"


class _Steps:
    __slots__ = ("failed", "left")

    def __init__(self) -> None:
        self.left = STEPS
        self.failed: str | None = None


_STEPS: Final = _Steps()


def begin() -> None:
    """Begin to evaluate an event, with the full number of steps."""
    _STEPS.left = STEPS
    _STEPS.failed = None
    if sys.getrecursionlimit() < FRAMES:
        sys.setrecursionlimit(FRAMES)


def note_failed(message: str) -> None:
    """Remember that an `assert` in an expression failed; two that differ are left to Jsonnet."""
    if _STEPS.failed not in (None, message):
        raise Doubtful(FAILED)
    _STEPS.failed = message


def noted() -> str | None:
    """Return the message of the `assert` that failed inside of an expression; None = none did."""
    return _STEPS.failed


def tick() -> bool:
    """Count a call; returns true, so that it can stand in a condition."""
    _STEPS.left -= A_CALL
    if _STEPS.left < 0:
        raise Exhausted(TOO_LONG)
    return True


def spend(steps: int) -> None:
    """Count the elements of an array that is about to be made."""
    if steps > STEPS:
        raise Exhausted(TOO_LARGE)
    _STEPS.left -= steps
    if _STEPS.left < 0:
        raise Exhausted(TOO_LONG)


def spend_text(characters: int) -> None:
    """Refuse a string that is about to be made larger than a string may be."""
    if characters > MAX_TEXT:
        raise Exhausted(TOO_LARGE)

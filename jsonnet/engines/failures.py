"""Error texts of the engines, read: the message, its position, and whether an `assert` failed.

rjsonnet says `assert failed: …` or an error, then indented lines with `file:line:column`, if it
knows them. The reference implementation says `RUNTIME ERROR: …` or `STATIC ERROR: place: …`, and
always knows the position, but not an assert from an error. Both are called with the same depth of
stack and the same native functions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Final

from segrelay.jsonnet.files import shown

MAX_MESSAGE: Final = 300
"""The characters of a message that are kept: an error may quote the profile."""
_ASSERT: Final = "assert failed: "
_PREFIXES: Final = ("RUNTIME ERROR: ", "STATIC ERROR: ", "runtime error: ")
_NAME: Final = r"(?P<name>(?:templates|lib):/[^\n:]+)"
_SPOT: Final = r"\(?(?P<line>\d+):(?P<column>\d+)\)?(?:-\(?[\d:]+\)?)?"
_FRAME: Final = re.compile(rf"^[ \t]+{_NAME}:{_SPOT}", re.MULTILINE)
_STATIC: Final = re.compile(rf"^STATIC ERROR: {_NAME}:{_SPOT}: ?")
_TRACE: Final = re.compile(
    r"^(?:[ ]{4}|\t)(?:(?:templates|lib):/|<std>|std\.jsonnet|main:|field <|argument <|elem|"
    r"during |During |thunk|\.\.\.|variable|string )",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a template for one event, as an engine reports it.

    Args:
        message: The message without its place, at most 300 characters; one line, except an
            assert's.
        asserted: True if an `assert` failed (only rjsonnet tells).
        file: The file as a person would write it; "" where the engine gives no place.
        line: The number of the line, from 1; 0 where the engine gives none.
        column: The number of the column, from 1; 0 where the engine gives none.
    """

    message: str
    asserted: bool = False
    file: str = ""
    line: int = 0
    column: int = 0


OBJECT_ASSERT: Final = "Object assertion failed."
"""The message of the other engines for an assert of an object that has none."""
_WITHOUT_MESSAGE: Final = ("Assertion failed", "Assertion failed.", OBJECT_ASSERT)
NO_MESSAGE: Final = "null"
EMPTY: Final = '"" (empty string)'


def as_assert(failure: Failure) -> Failure:
    """Return a failure as one of an assert, in the words of rjsonnet."""
    words = {"": EMPTY, **dict.fromkeys(_WITHOUT_MESSAGE, NO_MESSAGE)}
    return replace(failure, message=words.get(failure.message, failure.message), asserted=True)


def is_same_assert(ours: Failure, theirs: Failure) -> bool:
    """Say whether two failures of asserts say the same; some engines tell only the first line."""
    return _first_line(as_assert(ours).message) == _first_line(as_assert(theirs).message)


def read(text: str, headed: AbstractSet[str] = frozenset()) -> Failure:
    """Read an engine's error text.

    Args:
        text: The engine's error message.
        headed: The names of files that begin with a line of ours.
    """
    static = _STATIC.match(text)
    if static is not None:
        return _located(_first_line(text[static.end() :]), static, headed)
    trace = _TRACE.search(text)
    message = text[: trace.start()] if trace is not None else text
    frame = _frame_of_a_template(text[len(message) :])
    if message.startswith(_ASSERT):
        said = message.removeprefix(_ASSERT).strip()[:MAX_MESSAGE]
        return _located(said, frame, headed, asserted=True)
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return _located(_first_line(message), frame, headed)


def _frame_of_a_template(trace: str) -> re.Match[str] | None:
    """Return the innermost frame in a template, or in the library if there is none."""
    frames = list(_FRAME.finditer(trace))
    in_templates = [frame for frame in frames if frame["name"].startswith("templates:")]
    return next(iter(in_templates or frames), None)


def _located(
    message: str,
    spot: re.Match[str] | None,
    headed: AbstractSet[str],
    *,
    asserted: bool = False,
) -> Failure:
    if spot is None:
        return Failure(message, asserted=asserted)
    line = max(int(spot["line"]) - (spot["name"] in headed), 1)
    location = (shown(spot["name"]), line, int(spot["column"]))
    return Failure(message, asserted, *location)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()[:MAX_MESSAGE]


MAX_STACK: Final = 500
"""The depth of an engine's stack, rjsonnet's default; at some 5,000 recursion ends the process."""

Natives = dict[str, tuple[tuple[str, ...], Callable[..., Any]]]


def _digest(name: str) -> Callable[[str], str]:
    return lambda text: hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()


HASHES: Final[Natives] = {
    name: (("text",), _digest(algorithm))
    for name, algorithm in {
        **{each: each for each in ("sha1", "sha256", "sha512")},
        "sha3": "sha3_512",
    }.items()
}
"""Digests of texts in hexadecimal, which the reference implementation lacks."""

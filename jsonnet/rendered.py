"""The input and the results of rendering a template, and the error of one that does not load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

Engine = Literal["auto", "jsonnet"]
"""The way to render a template: `auto` may use its compiled form, `jsonnet` never does."""
_NO_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType({})


class TemplateBroken(Exception):  # noqa: N818 - says what is broken
    """A template does not parse or load; survives pickling.

    Args:
        message: the fault and its place, with a hint where there is one.
        file: The path, relative to the templates folder; "" if it is about no file.
        line: The number of the line, from 1; 0 where the engine names no place.
        column: The number of the column, from 1; 0 where the engine names no place.
    """

    def __init__(self, message: str, file: str = "", line: int = 0, column: int = 0) -> None:
        super().__init__(message, file, line, column)
        self.message = message
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return self.message


class Row(NamedTuple):
    """One event to render.

    Attributes:
        profile: The profile's JSON text, with exactly one entry in `segment_events`.
        settings: The settings of its trigger, for the template's `jobConfGet`.
        time_us: The time of the event, in µs since 1970, the only clock of a template; 0 = the time
            of its entry in `segment_events`.
    """

    profile: bytes
    settings: Mapping[str, Any] = _NO_SETTINGS
    time_us: int = 0

    def __repr__(self) -> str:
        return f"Row({len(self.profile)} bytes)"


UNREAD: Final = object()
"""Stands for the value of a body that nobody has read yet."""


@dataclass(slots=True)  # frozen, it would take three times as long to make
class Rendered:
    """The value of the template for one event.

    Args:
        body: The minified JSON: an object, or a string where the template yields a URL.
        value: The parsed body, with its keys in any order; `UNREAD` if only its text is known.
    """

    body: bytes
    value: Any = field(default=UNREAD, compare=False)

    def __repr__(self) -> str:
        return f"Rendered({len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class Asserted:
    """An `assert` of the template failed: the event is to be skipped.

    Args:
        message: The text of the assert, without what it says of the event.
    """

    message: str


@dataclass(frozen=True, slots=True)
class TemplateFailed:
    """The template failed for this event.

    Args:
        message: The engine's message in one line, without what it says of the event.
        file: The file as a person would write it; "" where no engine names a place.
        line: The number of the line, from 1; 0 where no engine names a place.
    """

    message: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Killed:
    """The throw-away process died of an event that was alone in it, or took too long for it."""

    cause: Literal["time", "crash"] = "crash"


Result = Rendered | Asserted | TemplateFailed


@dataclass(frozen=True, slots=True)
class Template:
    """The identity of a loaded template.

    Args:
        name: The path, relative to the templates folder.
        content_hash: The hash over its source and everything that it imports, 12 hex digits.
    """

    name: str
    content_hash: str

r"""Corrects templates that Markdown, or a shell's `echo`, damaged when they were copied.

Three kinds: a backslash before a sign that Jsonnet does not escape (`\[`, `\_uid`), the words
`echo '` around the whole, and a bracket that the page lost. The first two are certain. The last is
tried only where the file does not parse without it, and only kept if it parses with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.jsonnet.syntax.cursor import SyntaxWrong
from worker.jsonnet.syntax.parser import parse
from worker.jsonnet.syntax.tokens import place

_ECHO: Final = re.compile(r"\A\s*(?:\$ )?echo\s+'(?P<inner>.*)'\s*(?:[>|].*)?\Z", re.DOTALL)
_SHELL_QUOTE: Final = "'\\''"
_ESCAPED: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\([\[\]{}()_*#<>+.!|`~=&-])")
_CLOSING: Final = "]})"
_ENTITIES: Final = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">", "&#39;": "'"}
_CURLED: Final = dict.fromkeys("\u201c\u201d", '"') | dict.fromkeys("\u2018\u2019", "'")
_MOST_BRACKETS: Final = 4
"""Largest number of brackets that are inserted or removed; copying does not damage more."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction of a template."""

    line: int
    column: int
    what: str
    instead: str

    @property
    def in_words(self) -> str:
        """Return the correction in words."""
        if not self.instead:
            return f"{self.what} is taken out"
        return f"{self.instead} is put in" if not self.what else f"{self.what} → {self.instead}"


@dataclass(frozen=True, slots=True)
class Corrected:
    """A template's text without the damage.

    Args:
        problem: The reason why it still does not parse; "" = it does.
    """

    text: str
    corrections: tuple[Correction, ...]
    problem: str = ""
    line: int = 0
    column: int = 0


def corrected(text: str) -> Corrected:
    """Return a template's text without the damage, and the corrections."""
    inner, corrections = _without_echo(text)
    found, more = _without_escapes(inner)
    wrong = _wrong(found)
    if wrong is not None:
        balanced = _balanced(found)
        if balanced is not None:
            return Corrected(balanced[0], (*corrections, *more, *balanced[1]))
        line, column = place(found, wrong.at)
        return Corrected(found, (*corrections, *more), wrong.message, line, column)
    return Corrected(found, (*corrections, *more))


def copy_of(path: Path) -> Path:
    """Return the path of the corrected copy of a template, beside it."""
    return path.with_name(f"{path.stem}.fixed{path.suffix}")


def _without_echo(text: str) -> tuple[str, list[Correction]]:
    match = _ECHO.match(text)
    if match is None:
        return text, []
    line, column = place(text, text.index("echo"))
    inner = match["inner"].replace(_SHELL_QUOTE, "'")
    return inner + "\n", [Correction(line, column, "echo '…'", "")]


def _without_escapes(text: str) -> tuple[str, list[Correction]]:
    corrections = []
    for match in _ESCAPED.finditer(text):
        line, column = place(text, match.start(2) - 1)
        corrections.append(Correction(line, column, f"\\{match[2]}", match[2]))
    found = _ESCAPED.sub(r"\1\2", text)
    if _wrong(found) is None:
        return found, corrections
    for wrong, right in (_ENTITIES | _CURLED).items():
        if wrong in found:
            line, column = place(found, found.index(wrong))
            corrections.append(Correction(line, column, wrong, right))
            found = found.replace(wrong, right)
    return found, corrections


def _wrong(text: str) -> SyntaxWrong | None:
    try:
        parse(text)
    except SyntaxWrong as wrong:
        return wrong
    return None


def _balanced(text: str) -> tuple[str, list[Correction]] | None:
    """Insert or remove brackets where parsing fails; None if that does not help."""
    waiting: list[tuple[str, list[Correction]]] = [(text, [])]
    for _ in range(_MOST_BRACKETS):
        following: list[tuple[str, list[Correction]]] = []
        for each, corrections in waiting:
            for candidate, correction in _bracket_tried(each):
                if _wrong(candidate) is None:
                    return candidate, [*corrections, correction]
                following.append((candidate, [*corrections, correction]))
        waiting = following
    return None


def _bracket_tried(text: str) -> Iterator[tuple[str, Correction]]:
    wrong = _wrong(text)
    if wrong is None:
        return
    at = wrong.at
    line, column = place(text, min(at, max(0, len(text) - 1)))
    for bracket in "}])":
        yield text[:at] + bracket + text[at:], Correction(line, column, "", bracket)
    if text[at : at + 1] and text[at] in _CLOSING:
        yield text[:at] + text[at + 1 :], Correction(line, column, text[at], "")

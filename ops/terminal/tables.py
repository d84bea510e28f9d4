"""Tables that fit the screen; names, ids and times are never cut.

Columns that say nothing (all zero, all empty) are left out. A column that does not fit goes below
its row, under its own title; so does a text that is too long for its cell. Texts are broken between
words only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from unicodedata import combining, east_asian_width

GAP: Final = "  "
_INDENT: Final = "    "
_BETWEEN: Final = ", "
_NOTHING: Final = frozenset({"", "-", "0"})
_EMPTY: Final = frozenset({"", "-"})
_SHORT: Final = 24
"""The longest text, in characters, for which a column keeps enough room on a narrow screen."""
_ENDS_A_HEAD: Final = (": ", "; ")

ColumnKind = Literal["name", "number", "count", "words"]


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table.

    Args:
        kind: `name` is never broken; a `number` is set to the right; a `count` too, and left out
            if it is zero in every row; `words` may be wrapped.
    """

    title: str
    kind: ColumnKind = "name"

    @property
    def nothing(self) -> frozenset[str]:
        """Return the texts of cells that say nothing."""
        return _NOTHING if self.kind == "count" else _EMPTY


TableColumns = Sequence[str | TableColumn]
"""The columns of a table; a plain string is the title of a column of names, ids or times."""
Rows = Sequence[Sequence[str]]


def number_columns(*titles: str) -> tuple[TableColumn, ...]:
    """Return columns of numbers."""
    return tuple(TableColumn(title, "number") for title in titles)


def count_columns(*titles: str) -> tuple[TableColumn, ...]:
    """Return columns of numbers that are left out where all of them are zero."""
    return tuple(TableColumn(title, "count") for title in titles)


def text_columns(*titles: str) -> tuple[TableColumn, ...]:
    """Return columns of texts that may be wrapped."""
    return tuple(TableColumn(title, "words") for title in titles)


def laid_out(columns: TableColumns, rows: Rows, width: int | None) -> list[list[str]]:
    """Return the printed lines of the header, and those of each row.

    Args:
        columns: From the most important one to the least.
        rows: Cells as they may be shown.
        width: The width of the screen; None = every column, and one line for a row.
    """
    typed = [each if isinstance(each, TableColumn) else TableColumn(each) for each in columns]
    if width is not None and rows:
        kept = [
            at
            for at, column in enumerate(typed)
            if not at or any(row[at] not in column.nothing for row in rows)
        ]
        typed = [typed[at] for at in kept]
        rows = [[row[at] for at in kept] for row in rows]
    return _Layout(typed, rows, width).lines()


_WORD: Final = re.compile(r"(?:`[^`]*`|\S)+")


def wrapped(text: str, width: int, indent: str = "") -> Iterator[str]:
    """Break a text between words; a word that is longer than the screen stays whole.

    A command in backquotes is one word, and a text that has room stays as it is. What is continued
    stands two characters to the right of what begins.
    """
    line = ""
    for word in _WORD.findall(text) if cells_of(indent + text) > width else [text]:
        longer = f"{line} {word}" if line else indent + word
        if line and cells_of(longer) > width:
            yield line
            longer = f"{indent}  {word}"
        line = longer
    yield line


def cells_of(text: str) -> int:
    """Return the number of cells of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text
    )


class _Layout:
    """The columns of a row's first line, their widths, and the columns below it."""

    def __init__(self, columns: Sequence[TableColumn], rows: Rows, width: int | None) -> None:
        self._columns = columns
        self._rows = rows
        self._width = width
        self._widths = [self._fitted(at, None) for at in range(len(columns))]
        if width is not None and self._spare(width) < 0:
            # Only short texts have room at first, then the spare space is shared out.
            texts = [at for at, column in enumerate(columns) if at and column.kind == "words"]
            for at in texts:
                self._widths[at] = self._fitted(at, _SHORT)
            for at in texts:
                most = self._widths[at] + self._spare(width)
                self._widths[at] = max(self._widths[at], self._fitted(at, most))
        self._inline, used = [0], self._widths[0]
        for at in range(1, len(columns)):
            wider = used + len(GAP) + self._widths[at]
            if width is None or wider <= width:
                self._inline.append(at)
                used = wider

    def lines(self) -> list[list[str]]:
        titles = [column.title for column in self._columns]
        return [[self._line(titles)], *([self._line(row), *self._below(row)] for row in self._rows)]

    def _spare(self, width: int) -> int:
        return width - sum(self._widths) - len(GAP) * (len(self._widths) - 1)

    def _fitted(self, at: int, most: int | None) -> int:
        """Return the width that a column needs for texts of at most this length; None = any."""
        heads = (row[at] if most is None else _head(row[at], most) for row in self._rows)
        return max(map(cells_of, (self._columns[at].title, *heads)))

    def _shown(self, at: int, text: str) -> str:
        """Return the part of a text that its cell shows."""
        is_text = at and self._columns[at].kind == "words"
        return _head(text, self._widths[at]) if is_text else text

    def _line(self, cells: Sequence[str]) -> str:
        shown = []
        for at in self._inline:
            text = self._shown(at, cells[at])
            padding = " " * (self._widths[at] - cells_of(text))
            is_right = self._columns[at].kind in ("number", "count")
            shown.append(padding + text if is_right else text + padding)
        return GAP.join(shown).rstrip()

    def _below(self, row: Sequence[str]) -> Iterator[str]:
        """Yield lines with what the first line does not show: short cells, then long texts."""
        if self._width is None:
            return
        short: list[str] = []
        long: list[str] = []
        for at, (column, text) in enumerate(zip(self._columns, row, strict=True)):
            head = self._shown(at, text) if at in self._inline else ""
            if at and text not in column.nothing and head != text:
                is_short = column.kind != "words" or cells_of(text) <= _SHORT
                titled = text if head and not is_short else f"{column.title} {text}"
                (short if is_short else long).append(titled)
        yield from _flowed(short, self._width)
        for text in long:
            yield from wrapped(text, self._width, _INDENT)


def _head(text: str, most: int) -> str:
    """Return the part of a text that its cell shows: all, its first part, or nothing."""
    if cells_of(text) <= most:
        return text
    ends = [end for mark in _ENDS_A_HEAD if (end := text.find(mark)) > 0]
    head = text[: min(ends)] if ends else ""
    return head if cells_of(head) <= min(most, _SHORT) else ""


def _flowed(pieces: Sequence[str], width: int) -> Iterator[str]:
    """Join unbreakable pieces into lines, with as many on a line as fit."""
    line = ""
    for piece in pieces:
        longer = f"{line}{_BETWEEN}{piece}" if line else _INDENT + piece
        if line and cells_of(longer) > width:
            yield line + _BETWEEN.rstrip()
            longer = _INDENT + piece
        line = longer
    if line:
        yield line

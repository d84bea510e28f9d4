"""Tables that fit the screen; names, ids and times are never cut.

Columns that say nothing (all zero, all empty) are left out. If a table is wider than the screen,
what does not fit goes below its row, after the column's title: whole columns, and long texts. Texts
are broken between words only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from unicodedata import combining, east_asian_width

GAP: Final = "  "
_INDENT: Final = "    "
_NOTHING: Final = frozenset({"", "-", "0"})
_EMPTY: Final = frozenset({"", "-"})
_SHORT: Final = 24
"""The longest text, in characters, that stays in its row where the table is too wide."""

ColumnKind = Literal["name", "number", "count", "words"]


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table.

    Args:
        kind: The kind of its cells: a `name` is never broken; a `number` is set to the right; a
            `count` too, and left out if it is zero in every row; `words` may be wrapped.
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
        columns: The columns, from the most important one to the least.
        rows: The rows' cells, as printable texts.
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
    screen = sys.maxsize if width is None else width
    titles = [column.title for column in typed]

    def widths(shown: Rows) -> list[int]:
        return [max(map(cells_of, texts)) for texts in zip(titles, *shown, strict=True)]

    short = rows
    if sum(widths(rows)) + len(GAP) * (len(titles) - 1) > screen:
        is_text = [column.kind == "words" for column in typed]
        short = [
            ["" if is_text[at] and cells_of(text) > _SHORT else text for at, text in enumerate(row)]
            for row in rows
        ]
    inline: dict[int, int] = {}
    for at, cells in enumerate(widths(short)):
        if not at or sum(inline.values()) + len(GAP) * len(inline) + cells <= screen:
            inline[at] = cells

    def line(row: Sequence[str]) -> str:
        padded = []
        for at, cells in inline.items():
            space = " " * (cells - cells_of(row[at]))
            is_right = typed[at].kind in {"number", "count"}
            padded.append(space + row[at] if is_right else row[at] + space)
        return GAP.join(padded).rstrip()

    def below(row: Sequence[str], shown: Sequence[str]) -> Iterator[str]:
        for at, (column, text) in enumerate(zip(typed, row, strict=True)):
            is_shown = at in inline and shown[at] == text
            if not is_shown and text not in column.nothing:
                yield from wrapped(f"{column.title} {text}", screen, _INDENT)

    blocks = ([line(s), *below(row, s)] for row, s in zip(rows, short, strict=True))
    return [[line(titles)], *blocks]


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

"""A sync's source in files: the newest complete export that fits a pattern.

The time of its events is the file's own time of modification, so an export has to keep it when it
is copied. A file that is still being written is left for the next run.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import orjson

from producer.events.payloads import Payload
from producer.lytics import Page
from producer.sources.blocks import blocks_of
from producer.sources.csv_rows import Columns
from producer.sources.opening import Opened, opened
from producer.sync.sources import Look
from worker.errors import ScanExpired, UsageWrong

PAGE_ROWS: Final = 1_000
CALM_SECONDS: Final = 30.0
"""A file that was written to more recently is not believed to be complete."""
_UNFINISHED: Final = (".part", ".partial", ".filepart", ".tmp", ".crdownload", "~")
_NANOSECONDS: Final = 1_000_000_000


class _Chosen(NamedTuple):
    """A file, as it was when the scan began, and the row that comes next."""

    name: str
    changed_ns: int
    size: int
    row: int = 0

    def dumps(self) -> str:
        return orjson.dumps(list(self)).decode()


class FileSource:
    """Reads the newest file; used in a `with` block.

    Args:
        pattern: With `*` and the like; absolute.
        columns: How to read CSV.
        now: Seconds since 1970.
    """

    is_live = False

    def __init__(
        self, pattern: str, columns: Columns, *, now: Callable[[], float] = time.time
    ) -> None:
        self._pattern = pattern
        self._columns = columns
        self._now = now
        self._stack = ExitStack()
        self._at: _Chosen | None = None
        self._rows: Iterator[Payload] = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def page(self, start: str) -> Page:
        """Return the next rows of the file.

        Raises:
            ScanExpired: The file is not what it was when the scan began.
            UsageWrong: There is no complete file, or it can't be read.
        """
        chosen = _Chosen(*orjson.loads(start)) if start else self._newest()
        if self._at != chosen:
            self._open(chosen)
        payloads = list(islice(self._rows, PAGE_ROWS))
        rows: list[dict[str, Any]] = [
            payload.value
            for payload in payloads
            if not payload.error and isinstance(payload.value, dict)
        ]
        self._at = chosen._replace(row=chosen.row + len(payloads))
        return Page(
            rows=rows,
            following=self._at.dumps() if len(payloads) == PAGE_ROWS else "",
            total=None,
            at=datetime.fromtimestamp(chosen.changed_ns / _NANOSECONDS, UTC),
            bad=len(payloads) - len(rows),
        )

    def look(self, profile_key: str) -> Look:  # noqa: ARG002 - the protocol's signature
        """Who is not in a complete file has left."""
        return Look(is_member=False, profile={})

    def _newest(self) -> _Chosen:
        found = [
            seen
            for name in glob.glob(self._pattern)  # noqa: PTH207 - any pattern
            if not name.endswith(_UNFINISHED)
            if (seen := _seen(name)) and self._is_calm(seen)
        ]
        if not found:
            raise UsageWrong(
                f"There is no complete file {self._pattern}: one that was written to in the last"
                f" {CALM_SECONDS:.0f} s, or that is named like a part, does not count."
            )
        return max(found, key=lambda seen: (seen.changed_ns, seen.name))

    def _is_calm(self, seen: _Chosen) -> bool:
        return seen.changed_ns / _NANOSECONDS <= self._now() - CALM_SECONDS

    def _open(self, chosen: _Chosen) -> None:
        self._stack.close()
        if _seen(chosen.name) != chosen._replace(row=0):
            raise ScanExpired(f"{chosen.name} has changed since the scan began; it begins anew.")
        file = self._stack.enter_context(opened(chosen.name, with_digest=False))
        rows = _rows(file, self._columns)
        self._stack.enter_context(closing(rows))  # what reads ends before its file is closed
        self._rows = islice(rows, chosen.row, None)


def _rows(file: Opened, columns: Columns) -> Generator[Payload]:
    for block in blocks_of(file, columns):
        yield from block.payloads()


def _seen(name: str) -> _Chosen | None:
    try:
        found = Path(name).stat()
    except OSError:
        return None
    return _Chosen(name, found.st_mtime_ns, found.st_size)

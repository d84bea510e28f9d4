"""The sources of a sync: Lytics' scan, or the newest complete export that fits a pattern.

The time of an export's events is the file's own time of modification, the end of its writing, so an
export has to keep it when it is copied. A file that is still being written is left for the next
run. One that is written to while it is read is read anew: rows come only from a file that stood
still.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple, Self
from weakref import finalize

import orjson

from segrelay.producer.events.payloads import ID, PROFILE_ID, Payload
from segrelay.producer.lytics import LyticsApi, Page
from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import (
    UNFINISHED,
    Opened,
    files_of,
    look_at_file,
    opened,
)
from segrelay.producer.sources.remote import FileState
from segrelay.producer.sources.tables import Columns
from segrelay.worker.contract.settings.sections import LyticsSettings
from segrelay.worker.errors import (
    LyticsUnavailable,
    ScanExpired,
    SourceChanged,
    SourceDamaged,
    UsageWrong,
)

REQUEST_SECONDS: Final = 5.0
"""The longest time of one request; a step that has lasted as long begins no other."""
_SEGMENTS: Final = "segments"


class Look(NamedTuple):
    """The result of looking up somebody who was missing in the scan.

    Attributes:
        profile: The profile; {} where there is none any more.
    """

    is_member: bool
    profile: dict[str, Any]


class LyticsSource:
    """Reads Lytics' own API; used in a `with` block.

    Args:
        name: The audience's slug or id, as Lytics is asked for it.
        slug: The audience's slug, as profiles name it.
        identity: The configured identity field.
        fields: The fields that rows hold; none = all.
    """

    is_live = True

    def __init__(
        self,
        settings: LyticsSettings,
        *,
        name: str,
        slug: str,
        identity: str,
        fields: Sequence[str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = LyticsApi(settings, timeout_seconds=REQUEST_SECONDS, sleep=sleep)
        self._name = name
        self._slug = slug
        self._field = PROFILE_ID if identity == ID else identity
        self._fields = fields

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.__exit__()

    def page(self, start: str, stay: Callable[[], None]) -> Page:  # noqa: ARG002 - as FileSource
        """Return the page to which a token leads; "" leads to the first.

        Args:
            start: The token of the page before.
            stay: A function that keeps the step's lock, called while it takes long to reach the
                page.
        """
        return self._api.scan(self._name, fields=self._fields, start=start)

    def look(self, profile_key: str) -> Look:
        """Ask Lytics whether one person is still in the audience."""
        found = self._api.profile(self._field, profile_key.partition(":")[2])
        if found is None:
            return Look(is_member=False, profile={})
        segments = found.get(_SEGMENTS)
        if not isinstance(segments, list):
            raise LyticsUnavailable("Lytics does not tell the audiences of a profile.")
        return Look(self._slug in segments or self._name in segments, found)

    def refuse_change(self, origin: str) -> None:
        """Do nothing: each missing person is looked up once more before an exit is published.

        A file raises `ScanExpired` if it was written to since: what was read may be a part of it.
        """


PAGE_ROWS: Final = 1_000
CALM_SECONDS: Final = 30.0
"""The seconds without a write after which a file counts as complete."""
_STAY_SECONDS: Final = 3.0
_NANOSECONDS: Final = 1_000_000_000


class ExportMissing(UsageWrong):
    """There is no complete file yet; one may come before the next try."""


class _Chosen(NamedTuple):
    """A file, as it was when the scan began, and the row that comes next.

    The number of its device is not known: the next step may run on another machine.
    """

    name: str
    state: FileState
    row: int = 0

    def dumps(self) -> str:
        return orjson.dumps((self.name, tuple(self.state), self.row)).decode()

    @classmethod
    def loads(cls, text: str) -> Self:
        try:
            name, state, row = orjson.loads(text)
            return cls(name, FileState(*state), row)
        except (ValueError, TypeError):
            raise ScanExpired("Another version wrote where the scan stood.") from None


class FileSource:
    """Reads the newest complete export; used in a `with` block for each step.

    Between two steps the file stays open, until its last page or the next one that is read: only a
    process that does its first step of a scan reads through the rows that others have compared.
    Without that, each step would do so, and the way to the millionth row takes longer than a step.

    Args:
        pattern: The absolute pattern of files, with `*` and the like, or a URL of a bucket.
        now: A clock in seconds since 1970.
        stay_seconds: The time after which `stay` is called again while it takes long to reach a
            page.
    """

    is_live = False

    def __init__(
        self,
        pattern: str,
        columns: Columns,
        *,
        now: Callable[[], float] = time.time,
        stay_seconds: float = _STAY_SECONDS,
    ) -> None:
        self._pattern = pattern
        self._columns = columns
        self._now = now
        self._stay_seconds = stay_seconds
        self._stack = ExitStack()
        finalize(self, self._stack.close)  # what reads ends before its file is closed
        self._at: _Chosen | None = None
        self._file: Opened | None = None
        self._rows: Iterator[Payload] = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            self._stack.close()

    def page(self, start: str, stay: Callable[[], None] = lambda: None) -> Page:
        """Return the next rows of the file.

        Raises:
            ScanExpired: The file is not what it was when the scan began; its rows are kept back.
            SourceDamaged: The file is not whole, or it is CSV and does not end with a line break.
            ExportMissing: There is no complete file.
            UsageWrong: It can't be read.
        """
        chosen = _Chosen.loads(start) if start else self._newest()
        file = self._file_at(chosen, stay)
        self._file = None  # its rows have no end after an error: opened anew
        payloads = self._read(file)
        rows: list[dict[str, Any]] = [
            payload.value
            for payload in payloads
            if not payload.error and isinstance(payload.value, dict)
        ]
        is_last = len(payloads) < PAGE_ROWS
        self._at = chosen._replace(row=chosen.row + len(payloads))
        self._file = None if is_last else file
        return Page(
            rows=rows,
            following="" if is_last else self._at.dumps(),
            total=None,
            at=datetime.fromtimestamp(chosen.state.changed_ns / _NANOSECONDS, UTC),
            bad=len(payloads) - len(rows),
            origin=chosen._replace(row=0).dumps(),
        )

    def _file_at(self, chosen: _Chosen, stay: Callable[[], None]) -> Opened:
        """Return the file at the chosen row, opened anew if it was read beyond that row already."""
        at = self._at
        is_behind = not at or at._replace(row=0) != chosen._replace(row=0) or at.row > chosen.row
        if self._file is None or is_behind:
            self._file, self._at = self._open(chosen), chosen._replace(row=0)
        file, self._file = self._file, None
        assert self._at is not None
        stays_at = time.monotonic() + self._stay_seconds
        for row in range(self._at.row, chosen.row, PAGE_ROWS):
            deque(islice(self._rows, min(PAGE_ROWS, chosen.row - row)), maxlen=0)
            if time.monotonic() > stays_at:
                stay()
                stays_at = time.monotonic() + self._stay_seconds
        return file

    def look(self, profile_key: str) -> Look:  # noqa: ARG002 - as LyticsSource
        """Say that the person has left: a complete file has everybody who is in the audience."""
        return Look(is_member=False, profile={})

    def refuse_change(self, origin: str) -> None:
        """Raise if the file was written to since it was read; it may be gone, or replaced."""
        if not origin:
            return
        read = _Chosen.loads(origin)
        now = look_at_file(read.name)
        if now and now.version == read.state.version and now != read.state:
            raise _changed(read.name)

    def _newest(self) -> _Chosen:
        found = [
            _Chosen(name, state)
            for name in files_of(self._pattern)
            if not name.endswith(UNFINISHED)
            if (state := look_at_file(name))
            if state.changed_ns / _NANOSECONDS <= self._now() - CALM_SECONDS
        ]
        if not found:
            raise ExportMissing(
                f"There is no complete file {self._pattern}: one that was written to in the last"
                f" {CALM_SECONDS:.0f} s, or that is named like a part, does not count."
            )
        return max(found, key=lambda seen: (seen.state.changed_ns, seen.name))

    def _open(self, chosen: _Chosen) -> Opened:
        self._stack.close()
        file = self._stack.enter_context(opened(chosen.name))
        if file.state != chosen.state:
            raise _changed(chosen.name)
        if not file.shows_its_end():
            raise SourceDamaged(
                f"{chosen.name} is damaged: its last row has no line break, so nobody can tell "
                "whether it is cut off."
            )
        rows = _rows(file, self._columns)
        self._stack.enter_context(closing(rows))  # what reads ends before its file is closed
        self._rows = rows
        return file

    def _read(self, file: Opened) -> list[Payload]:
        """Read the next rows; if the file was written to, raise that and not the damage."""
        try:
            try:
                return list(islice(self._rows, PAGE_ROWS))
            finally:
                file.refuse_change()
        except SourceChanged as error:
            raise _changed(file.name) from error


SyncSource = LyticsSource | FileSource
"""The members of the audience, page by page; both have the same methods.

`page` may raise `ScanExpired`: the scan has to begin anew; `SourceDamaged`: it is a file, and not
whole; `LyticsUnavailable`: it can't be read now. `is_live` says whether the source answers with
present data, so that its clock has to be right.
"""
OpenSource = Callable[[Callable[[float], None]], AbstractContextManager[SyncSource]]
"""A function that opens a source for one step; its argument waits, or raises if it can't."""


def _rows(file: Opened, columns: Columns) -> Generator[Payload]:
    for block in blocks_of(file, columns):
        yield from block.payloads()


def _changed(name: str) -> ScanExpired:
    return ScanExpired(f"{name} has changed since the scan began; it begins anew.")

"""Sources of payloads that an operator names: a file, or standard input, read in batches."""

from __future__ import annotations

import codecs
import hashlib
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol

from segrelay.producer.events.payloads import Payload, values_of
from segrelay.producer.sources.opening import (
    STANDARD_INPUT,
    Packed,
    buffered,
    digest_of,
    open_packed,
)
from segrelay.worker.contract.settings.urls import is_remote
from segrelay.worker.errors import UsageWrong

BATCH_PAYLOADS: Final = 1_000
BATCH_BYTES: Final = 4 * 1024 * 1024
LIVE_SECONDS: Final = 0.7
"""The seconds after which live lines are published, so that each is in Redis within a second."""
IDLE_SECONDS: Final = 0.2
_SNIFFED_BYTES: Final = 4_096
_PIPE_BYTES: Final = 1 << 18
_MAGIC: Final = {
    b"\x1f\x8b": "gzip: `zcat FILE | segrelay send -`",
    b"\x28\xb5\x2f\xfd": "zstd: `zstdcat FILE | segrelay send -`",
    b"PK\x03\x04": "a zip archive: `unzip -p FILE | segrelay send -`",
    b"\xff\xfe": "UTF-16: `iconv -f utf-16 -t utf-8 FILE | segrelay send -`",
    b"\xfe\xff": "UTF-16: `iconv -f utf-16 -t utf-8 FILE | segrelay send -`",
}


class Lines(Protocol):
    """A source that `read_payloads` can read."""

    def readline(self, limit: int, /) -> bytes | None:
        """Return the next line or piece of one, b"" at the end; None if none came for a while."""


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """An opened source of payloads, which can be read, and digested if it is a file.

    Args:
        is_live: More of it may come at any time: it is written as it comes, not by the thousand.
        file_id: The device and the inode of a file of this machine that was named.
    """

    lines: Lines
    is_live: bool
    file_id: tuple[int, int] | None = None
    _packed: Packed | None = None

    def digest(self, salt: str, times: int = 1) -> str:
        """Return a digest of the file's content; "" where the source can't be read twice.

        Args:
            salt: The rest of what decides about the deliveries that come of it.
            times: As for `batches`.
        """
        if self._packed is None:
            return ""
        sizes = f"{times * BATCH_PAYLOADS}|{times * BATCH_BYTES}"
        told = f"{digest_of(self._packed)}|{salt}|{sizes}"
        return hashlib.sha256(told.encode()).hexdigest()[:24]


@contextmanager
def opened(name: str) -> Iterator[OpenedSource]:
    """Open a source of payloads and look whether it can be JSON at all.

    Raises:
        UsageWrong: It is missing, a directory, unreadable, or no JSON.
        SourceUnavailable: It lies elsewhere, and there is no answer.
    """
    with open_packed(name) as (packed, state), buffered(packed) as stream:
        if state is None and name == STANDARD_INPUT:
            yield OpenedSource(PipeLines(packed.fileno(), name), is_live=True)
            return
        _refuse_other_formats(name, stream.peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES])
        if state is None or name == STANDARD_INPUT:
            yield OpenedSource(stream, is_live=False)
            return
        file_id = None
        if not is_remote(name):
            found = os.fstat(packed.fileno())
            file_id = (found.st_dev, found.st_ino)
        yield OpenedSource(stream, is_live=False, file_id=file_id, _packed=packed)


class PipeLines:
    """The lines of a pipe or a terminal; None where none was completed for a while."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._pending = bytearray()
        self._looked_at = 0
        self._begun = False
        self._ended = False

    def readline(self, limit: int, /) -> bytes | None:
        """Return the next line, b"" at the end, None if none was completed for 0.2 s.

        Raises:
            UsageWrong: It begins as no JSON does.
        """
        deadline = time.monotonic() + IDLE_SECONDS
        while (size := self._line_size(limit)) is None:
            remaining = max(0.0, deadline - time.monotonic())
            if not select.select([self._descriptor], [], [], remaining)[0]:
                return None
            self._take(os.read(self._descriptor, _PIPE_BYTES))
        line = bytes(self._pending[:size])
        del self._pending[:size]
        self._looked_at = 0
        return line

    def _line_size(self, limit: int) -> int | None:
        found = self._pending.find(b"\n", self._looked_at, limit)
        if found >= 0:
            return found + 1
        self._looked_at = len(self._pending)
        return min(limit, len(self._pending)) if self._ended or self._looked_at >= limit else None

    def _take(self, data: bytes) -> None:
        if data and not self._begun:
            _refuse_other_formats(self._name, data[:_SNIFFED_BYTES])
            self._begun = True
        self._ended = not data
        self._pending += data


def batches(
    payloads: Iterable[Payload | None],
    *,
    is_live: bool = False,
    times: int = 1,
    stops: Callable[[], bool] = lambda: False,
) -> Iterator[Iterator[Payload]]:
    """Yield batches of a thousand payloads or 4 MB; a source always gives the same batches.

    A batch is read while it is gone through, which has to be done before the next one: so each
    payload can be dealt with, and its value dropped, while it is in the processor's cache.

    Args:
        payloads: None where none came for a while.
        is_live: End a batch also with what came in the last second, however little it is.
        times: The factor by which the batches are larger than usual, see `blocks.block_times`.
        stops: A function that says whether to stop reading. Of a live source, a batch ends with
            what was read; of others it is read to its end: a job goes on behind whole batches.
    """
    coming = iter(payloads)
    stopped = False

    def batch(first: Payload) -> Iterator[Payload]:
        nonlocal stopped
        count = size = 0
        begun = time.monotonic()
        for payload in chain((first,), coming):
            if payload is not None:
                count += len(values_of(payload.value))
                size += len(payload.text)
                yield payload
            waited = is_live and (payload is None or time.monotonic() - begun >= LIVE_SECONDS)
            stopped = is_live and stops()
            is_full = count >= times * BATCH_PAYLOADS or size >= times * BATCH_BYTES
            if is_full or waited or stopped:
                return

    for first in coming:
        if first is not None:
            yield batch(first)
        if stopped or stops():
            return


def _refuse_other_formats(name: str, head: bytes) -> None:
    _refuse_binary(name, head)
    if _is_table(head):
        raise UsageWrong(
            f"{name} is a table (CSV), not JSON. Its rows hold no events; {rows_hint(name)}"
        )


def _refuse_binary(name: str, head: bytes) -> None:
    for magic, hint in _MAGIC.items():
        if head.startswith(magic):
            raise UsageWrong(f"{name} is not JSON text but {hint}.")
    if b"\x00" in head:
        raise UsageWrong(f"{name} is not JSON text: it holds binary zeros.")


def rows_hint(name: str) -> str:
    """Return a hint at the command that takes rows of profiles."""
    return (
        f"`segrelay backfill start {name} --audience SLUG` makes events of them: each row is a "
        "person who is in the audience."
    )


def _is_table(head: bytes) -> bool:
    """Say whether a file begins like a table: separators in its first line, JSON in no line."""
    lines = [line.strip() for line in head.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    lines = [line for line in lines if line]
    if not lines or any(line.startswith((b"{", b"[")) for line in lines):
        return False
    return any(separator in lines[0] for separator in (b",", b";", b"\t", b"|"))

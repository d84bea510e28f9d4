"""The blocks of all sources of a job, numbered.

They are the same in every run if the sources can be read twice.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from producer.backfill.job import Spec
from producer.events.rows import RowMeaning, has_own_events
from producer.sources.blocks import Block, blocks_of, grouped
from producer.sources.opening import STANDARD_INPUT, Opened, opened
from producer.sources.scans import audience_of, scan_rows
from worker.contract.settings import Settings
from worker.errors import SegrelayError, SourceChanged, UsageWrong


@dataclass(frozen=True, slots=True)
class Piece:
    """A block with its place in the whole job."""

    number: int
    file: str
    block: Block
    bytes_read: int


def pieces_of(spec: Spec, settings: Settings) -> Generator[Piece]:
    """Yield the blocks of all sources, numbered from 1.

    Raises:
        UsageWrong: A file is not what it was when the job began.
        SourceChanged: A file was written to while it was read.
        SourceDamaged: A file is not whole; its blocks up to there were yielded.
        LyticsUnavailable: A scan can't go on.
    """
    number = bytes_before = 0
    for name, digest in zip(spec.sources, spec.digests, strict=True):
        audience = audience_of(name)
        if audience:
            rows = scan_rows(settings, audience)
            for block in grouped(rows, spec.canary if number == 0 else 0, spec.block_times):
                number += 1
                yield Piece(number, name, block, 0)
            continue
        with opened(name, with_digest=bool(digest)) as found:
            if digest and found.digest != digest:
                raise UsageWrong(
                    f"{name} has changed since job '{spec.name}' began: what was published is "
                    "counted in blocks of the old file. Start a new job for the new one; people "
                    "who are in both are delivered once."
                )
            first_rows = spec.canary if number == 0 else 0
            for block in _unchanged(found, spec, first_rows):
                if number == 0 and name == STANDARD_INPUT:
                    refuse_first_rows(name, block, spec.membership)
                number += 1
                yield Piece(number, name, block, bytes_before + found.read_bytes())
            bytes_before += found.size


def refuse_first_rows(name: str, block: Block | None, membership: RowMeaning | None) -> None:
    """Refuse a source without an audience whose first rows bring no events of their own.

    Raises:
        UsageWrong: None of them does.
    """
    if block is None or membership is not None:
        return
    rows = [row.value for row in block.payloads() if isinstance(row.value, dict | list)]
    profiles = [each for row in rows for each in (row if isinstance(row, list) else [row])]
    if not profiles or any(isinstance(p, dict) and has_own_events(p) for p in profiles):
        return
    raise UsageWrong(
        f"The rows of {name} are profiles without segment events: they do not say which audience "
        f"these people are in. Say it: `segrelay backfill start {name} --audience SLUG --as-of "
        "TIME` makes each a member as of that time; with `--on exit`, each has left."
    )


def _unchanged(file: Opened, spec: Spec, first_rows: int) -> Iterator[Block]:
    """Yield the blocks of a file as long as nobody writes to the file.

    Raises:
        SourceChanged: It was written to; no block that may hold something of both is yielded.
    """
    try:
        for block in blocks_of(file, spec.columns, first_rows=first_rows, times=spec.block_times):
            _refuse_change(file, spec)
            yield block
    except SourceChanged:
        raise
    except SegrelayError:
        _refuse_change(file, spec)  # what is damaged may be damaged by that
        raise
    _refuse_change(file, spec)


def _refuse_change(file: Opened, spec: Spec) -> None:
    try:
        file.refuse_change()
    except SourceChanged as error:
        raise SourceChanged(
            f"{error.message} What job '{spec.name}' has read of it before is delivered; the job "
            "is not complete. Start a new job once the file is whole: people who are in both are "
            "delivered once."
        ) from error

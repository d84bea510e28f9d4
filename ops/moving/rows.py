"""Carrying the entries of streams over: deliveries that wait, and lines such as the history's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ops.moving.carrying import STEP, Carrier, in_parts
from ops.moving.held import HeldCall, run_held
from ops.state.partitions import ask_each
from worker.contract.events import decode_header
from worker.contract.keys import PartitionKeys
from worker.contract.redis.scripts import Value
from worker.errors import PayloadRefused

LOGS: Final = frozenset({"history", "responses"})
"""Streams of a partition whose entries are not deliveries."""
DigestOf = Callable[[bytes], str]
"""A function that returns the digest (hex) of the profile that an entry is about; "" = none."""


class SourceRow(NamedTuple):
    """An entry of a stream, and the carrier of the partition in which it stands."""

    carrier: Carrier
    entry_id: bytes
    fields: Mapping[bytes, bytes]

    @property
    def position(self) -> tuple[int, int]:
        """Return the entry's id as numbers."""
        milliseconds, _, number = self.entry_id.partition(b"-")
        return int(milliseconds), int(number)

    @property
    def value(self) -> bytes:
        """Return what the first field of the entry holds."""
        return next(iter(self.fields.values()), b"")


class _Bound(NamedTuple):
    """Entries that go to one partition, and its index among the targets of their carriers."""

    at: int
    rows: list[SourceRow]


def carry_entries(carrier: Carrier, name: str, target: str, ids: Sequence[str]) -> int:
    """Move these deliveries of a stream to the stream `target`; return their number."""
    key = carrier.old.place.stream(name)
    moved = 0
    for part in in_parts(ids, STEP):
        found = ask_each(carrier.client, part, lambda pipe, one: pipe.xrange(key, one, one))
        rows = [SourceRow(carrier, *row) for each in found for row in each]
        moved += _carry(name, target, name, rows, _digest_of_delivery)
    return moved


def carry_stream(carriers: Sequence[Carrier], name: str) -> Iterator[int]:
    """Move all deliveries of a stream out of all partitions at once, in the order of their ids.

    So they stand in their new streams in the order in which they were accepted.

    Yields:
        How many each step has carried.
    """
    for rows in _steps(carriers, lambda place: place.stream(name)):
        yield _carry(name, name, name, rows, _digest_of_delivery)


def carry_log(carriers: Sequence[Carrier], part: str, digest_of: DigestOf) -> Iterator[int]:
    """Move a stream whose entries are not deliveries, such as the history."""
    for rows in _steps(carriers, lambda place: str(getattr(place, part))):
        yield _carry("", part, part, rows, lambda row: digest_of(row.value))


def _steps(
    carriers: Sequence[Carrier], key_in: Callable[[PartitionKeys], str]
) -> Iterator[list[SourceRow]]:
    """Yield the oldest entries of these streams, step by step; the caller moves them."""
    while True:
        found = ask_each(
            carriers[0].client,
            carriers,
            lambda pipe, carrier: pipe.xrange(key_in(carrier.old.place), count=STEP),
        )
        heads = [
            [SourceRow(carrier, *row) for row in rows]
            for carrier, rows in zip(carriers, found, strict=True)
        ]
        # Behind the last entry that was read of a full part there may be older ones than elsewhere.
        ends = [rows[-1].position for rows in heads if len(rows) == STEP]
        rows = sorted((row for part in heads for row in part), key=lambda row: row.position)
        if not rows:
            return
        yield [row for row in rows if not ends or row.position <= min(ends)]


def _carry(
    name: str,
    target: str,
    mark: str,
    rows: Sequence[SourceRow],
    digest_of_row: Callable[[SourceRow], str],
) -> int:
    groups: dict[PartitionKeys, _Bound] = {}
    for row in rows:
        digest = digest_of_row(row) if len(row.carrier.targets) > 1 else ""
        at = row.carrier.target_of(digest)
        groups.setdefault(row.carrier.place(at), _Bound(at, [])).rows.append(row)
    into = list(groups.values())
    _add_rows(name, target, mark, into)
    removed = 0
    for own in _by_carrier(rows):
        removed += remove_rows(own[0].carrier, mark, [row.entry_id.decode() for row in own])
    for at, group in into:
        marks = [_mark(row, mark) for row in group]
        group[0].carrier.forget(at, marks)
    return removed


def _add_rows(name: str, target: str, mark: str, into: Sequence[_Bound]) -> None:
    calls: list[HeldCall] = []
    for at, group in into:
        carrier = group[0].carrier
        new = carrier.place(at)
        key = new.stream(target) if name else getattr(new, target)
        args: list[Value] = [target if name else ""]
        for row, setback in zip(group, _setbacks(name, group), strict=True):
            values = [*row.fields.items()]
            args += (_mark(row, mark), row.entry_id, setback, len(values))
            args += [each for pair in values for each in pair]
        calls.append(
            HeldCall(
                carrier.targets[at],
                [new.counts, new.streams, carrier.carried(at), new.aside, key],
                args,
            )
        )
    if calls:
        run_held(calls[0].lease.client, "entries_in", calls)


def _setbacks(name: str, rows: Sequence[SourceRow]) -> list[bytes]:
    if not name:
        return [b""] * len(rows)
    found = ask_each(
        rows[0].carrier.client,
        rows,
        lambda pipe, row: pipe.hget(row.carrier.old.place.aside, f"{name}|{row.entry_id.decode()}"),
    )
    return [each or b"" for each in found]


def remove_rows(carrier: Carrier, part: str, ids: Sequence[str]) -> int:
    """Remove entries that have arrived at a target; return how many were still in the source.

    `part` is the name of their stream, or the part of the partition, e.g. `history`.
    """
    old = carrier.old.place
    name = "" if part in LOGS else part
    key = old.stream(name) if name else getattr(old, part)
    out: list[str | bytes] = [old.counts, old.streams, old.holds, old.aside, old.orphans, key]
    return carrier.old.run("entries_out", out, [name, *ids])


def _by_carrier(rows: Sequence[SourceRow]) -> list[list[SourceRow]]:
    found: dict[str, list[SourceRow]] = {}
    for row in rows:
        found.setdefault(row.carrier.old.place.tag, []).append(row)
    return list(found.values())


def _mark(row: SourceRow, part: str) -> str:
    return f"{row.carrier.prefix}{part}|{row.entry_id.decode()}"


def _digest_of_delivery(row: SourceRow) -> str:
    """Return the digest (hex) of an entry's profile; "" where nobody can read it."""
    try:
        return decode_header(row.fields.get(b"h", b"")).digest.hex()
    except PayloadRefused:
        return ""

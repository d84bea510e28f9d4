"""Moving what a partition holds to the same partition of another destination.

Each part is copied, marked as copied, and only then removed, with one script for each of the
partitions. So it can be repeated from wherever it was interrupted.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from segrelay.ops.dead_letters.reading import (
    NUMBERS_CHANGED,
    dead_letter_id_in,
)
from segrelay.ops.moving.leases import HeldLease
from segrelay.ops.state import opened
from segrelay.ops.state.partitions import ask_each
from segrelay.worker.batch.partition import LedgerText
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys
from segrelay.worker.contract.ledger import unpack
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_fields
from segrelay.worker.contract.redis.scripts import ScriptCall, Value
from segrelay.worker.core.ledger import merged
from segrelay.worker.errors import PartitionsChange

_T = TypeVar("_T")
STEP: Final = 500
COUNTS: Final = "counts"
DEAD_LETTER: Final = "letter"
"""The word in the marks of moved dead letters, `letter|id`; those of entries are `stream|id`."""
_DEAD_LETTERS: Final = 50
"""Letters moved in one call: few, because a letter may hold a profile of a megabyte."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """Moves what one partition holds to another one.

    Args:
        old: The lease of the partition that is emptied.
        new: The lease of the partition that gets it all.
    """

    client: Redis
    old: HeldLease
    new: HeldLease
    retention_ms: int

    @property
    def place(self) -> PartitionKeys:
        """Return the keys of the partition that gets it all."""
        return self.new.place

    @property
    def carried(self) -> str:
        """Return the key under which the new partition records the parts that have arrived."""
        return self.place.carried(self.old.place.destination)

    def merge_ledgers(self, digests: Iterable[bytes]) -> None:
        """Merge the records of profiles in the old ledger into the new ones.

        The old one stays as it is.
        """
        for part in in_parts(list(dict.fromkeys(digests)), STEP):
            names: list[str | bytes] = []
            args: list[Value] = [self.retention_ms]
            for digest, theirs, left_ms, ours in self._ledgers(part):
                if theirs is None or theirs == ours:
                    continue
                if ours:
                    text, lasts = LedgerText.of(merged(unpack(ours), unpack(theirs)))
                else:
                    text, lasts = theirs, left_ms < 0
                if text != ours:
                    names.append(self.place.ledger(digest))
                    args += (text, int(lasts))
            if names:
                self.new.run("ledgers_in", names, args)

    def _ledgers(
        self, digests: Sequence[bytes]
    ) -> list[tuple[bytes, bytes | None, int, bytes | None]]:
        """Read ledger records: digest, old text, its time to live (ms), new text."""
        old = self.old.place
        found = ask_each(
            self.client,
            digests,
            lambda pipe, digest: pipe.get(old.ledger(digest)),
            lambda pipe, digest: pipe.pttl(old.ledger(digest)),
            lambda pipe, digest: pipe.get(self.place.ledger(digest)),
        )
        return list(zip(digests, found[::3], found[1::3], found[2::3], strict=True))

    def hash(self, suffix: str) -> None:
        """Move the fields of a hash, by what stands behind the tag in its key."""
        for part in scan_fields(self.client, f"{self.old.place.tag}{suffix}"):
            self.fields(suffix, part)

    def fields(self, suffix: str, part: Sequence[tuple[bytes, bytes]]) -> None:
        """Move some fields of a hash; those that are there already stay."""
        key = f"{self.old.place.tag}{suffix}"
        pairs: list[Value] = [each for pair in part for each in pair]
        self._add(suffix, "hash", self._kept_ms(key), pairs)
        self.old.run("fields_out", [key], ["hash", *pairs])

    def arrival_marks(self, suffix: str) -> None:
        """Move the marks of a person's letters that have come from their former identity.

        They lapse where nobody deletes them.
        """
        key = f"{self.old.place.tag}{suffix}"
        for part in scan_fields(self.client, key):
            there: list[Value] = []
            for field, value in part:
                kind, _, dead_letter = field.decode().partition("|")
                there += (f"{kind}|{dead_letter_id_in(self.place, dead_letter)}", value)
            self._add(suffix, "hash", str(self.retention_ms), there)
            pairs: list[Value] = [each for pair in part for each in pair]
            self.old.run("fields_out", [key], ["hash", *pairs])

    def _add(self, suffix: str, kind: str, kept_ms: str, args: Sequence[Value]) -> None:
        if args:
            self.new.run("fields_in", [f"{self.place.tag}{suffix}"], [kind, kept_ms, *args])

    def positions(self, suffix: str) -> None:
        """Move the positions of jobs.

        If there is one already, the later one holds; at the same one, what was added there is
        what both say.
        """
        key = f"{self.old.place.tag}{suffix}"
        stored: Any = self.client.hgetall(key)
        rows = [
            (job, position, stored.get(job + b"|chunk", b""))
            for job, position in stored.items()
            if not job.endswith(b"|chunk")
        ]
        if rows:
            args: list[Value] = [each for row in rows for each in row]
            self._add(suffix, "positions", self._kept_ms(key), args)
            self.old.run(
                "fields_out", [key], ["hash", *(e for pair in stored.items() for e in pair)]
            )

    def members(self, part: str) -> None:
        """Move the members of a sorted set."""
        key = getattr(self.old.place, part)
        kept_ms = self._kept_ms(key)
        rows: Any = self.client.zrange(key, 0, -1, withscores=True)
        for some in in_parts(rows, STEP):
            pairs: list[Value] = [each for pair in some for each in pair]
            self._add(part, "set", kept_ms, pairs)
            self.old.run("fields_out", [key], ["set", *pairs])

    def _kept_ms(self, key: str) -> str:
        left: Any = self.client.pttl(key)
        return str(left) if left > 0 else ""

    def dead_letters(self) -> int:
        """Carry the dead letters over, with their counts; returns how many there were."""
        count = 0
        for found in scan_fields(self.client, self.old.place.dead_letters, _DEAD_LETTERS):
            for some in in_parts(found, _DEAD_LETTERS):
                texts = [orjson.loads(text) for _, text in some]
                self._carry_dead_letters(texts)
                count += len(texts)
        return count

    def _carry_dead_letters(self, dead_letters: Sequence[dict[str, Any]]) -> None:
        new = self.place
        keys = (new.counts, new.dead_letters, new.lettertimes, new.causes, new.lease, self.carried)
        call = ScriptCall(keys, self._arrived(dead_letters, new))
        if NUMBERS_CHANGED in opened.run(self.client, "import", [call], replicated=True):
            raise PartitionsChange
        self.dead_letters_left(dead_letters)
        ids = [dead_letter_id_in(new, dead_letter["id"]) for dead_letter in dead_letters]
        self.forget([f"{DEAD_LETTER}|{one}" for one in ids])

    def dead_letters_left(self, dead_letters: Iterable[dict[str, Any]]) -> None:
        """Remove letters from the old partition that have arrived, and their counts."""
        old = self.old.place
        gone: list[Value] = []
        for dead_letter in dead_letters:
            gone += (
                dead_letter["id"],
                dead_letter["cause"],
                dead_letter["stream"],
                dead_letter["reason"],
            )
        self.old.run(
            "letters_out", [old.counts, old.dead_letters, old.lettertimes, old.causes], gone
        )

    def _arrived(self, dead_letters: Sequence[dict[str, Any]], new: PartitionKeys) -> list[Value]:
        """Return the arguments of the script that adds letters."""
        old = self.old.place
        args: list[Value] = []
        told = ask_each(
            self.client,
            dead_letters,
            lambda pipe, dead_letter: pipe.zscore(old.lettertimes, dead_letter["id"]),
            lambda pipe, dead_letter: pipe.hget(old.causes, dead_letter["cause"]),
        )
        for dead_letter, died, sample in zip(dead_letters, told[::2], told[1::2], strict=True):
            there = {
                **dead_letter,
                "id": dead_letter_id_in(new, dead_letter["id"]),
                "destination": new.destination,
                "partition": new.partition,
            }
            args += (there["id"], orjson.dumps(there), round(died or dead_letter["last_at_ms"]))
            args += (
                dead_letter["cause"],
                sample or b"{}",
                dead_letter["stream"],
                dead_letter["reason"],
            )
        return args

    def counts(self) -> None:
        """Move the counts, except those of deliveries that wait in the old partition."""
        old, new = self.old.place, self.place
        names = (old.lease, old.counts, old.streams, old.leaving, old.jobtimes, old.responseslost)
        args = (self.old.token, old.tag, secrets.token_hex(8))
        call = ScriptCall(names, args)
        (answer,) = opened.run(self.client, "counts_leave", [call], replicated=True)
        rows = answer if isinstance(answer, list) else []
        leaving = dict(zip(rows[::2], rows[1::2], strict=True))
        mark = leaving.pop(b"id", b"")
        if not leaving:
            return
        pairs: list[Value] = [each for pair in leaving.items() for each in pair]
        self.new.run(
            "counts_in",
            [new.counts, new.jobtimes, new.responseslost, self.carried],
            [COUNTS, mark, self.retention_ms, *pairs],
        )
        self.counts_left(mark)
        self.forget([COUNTS])

    def counts_left(self, mark: bytes) -> None:
        """Remove the counts that have arrived under this mark from the old partition."""
        old = self.old.place
        keys: list[str | bytes] = [old.counts, old.leaving, old.jobtimes, old.responseslost]
        self.old.run("counts_out", keys, [mark])

    def forget(self, marks: Sequence[str]) -> None:
        """Delete the marks of moved parts, once they are gone from the old partition."""
        self.client.hdel(self.carried, *marks)


def in_parts(rows: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield a list in parts of at most `size` items."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def digest_in(key: bytes, place: PartitionKeys) -> bytes | None:
    """Return the digest in the key of a ledger record; None for another key of the partition."""
    start = place.ledger(b"")
    digest = key.removeprefix(start)
    is_ledger = key.startswith(start) and len(digest) == DIGEST_BYTES
    return digest if is_ledger and key != place.lettertimes.encode() else None


LOGS: Final = frozenset({"history", "responses"})
"""Streams of a partition whose entries are not deliveries."""


def carry_entries(carrier: Carrier, name: str, target: str, ids: Sequence[str]) -> int:
    """Move these deliveries of a stream to the stream `target`; return their number."""
    key = carrier.old.place.stream(name)
    moved = 0
    for part in in_parts(ids, STEP):
        found = ask_each(carrier.client, part, lambda pipe, one: pipe.xrange(key, one, one))
        moved += _carry(carrier, name, target, name, [row for each in found for row in each])
    return moved


def carry_stream(carrier: Carrier, name: str) -> Iterator[int]:
    """Move all deliveries of a stream; yields how many each step has moved."""
    for rows in _steps(carrier, carrier.old.place.stream(name)):
        yield _carry(carrier, name, name, name, rows)


def carry_log(carrier: Carrier, part: str) -> Iterator[int]:
    """Move a stream whose entries are not deliveries, such as the history."""
    for rows in _steps(carrier, str(getattr(carrier.old.place, part))):
        yield _carry(carrier, "", part, part, rows)


Row = tuple[bytes, Mapping[bytes, bytes]]
"""An entry's id, and its fields."""


def _steps(carrier: Carrier, key: str) -> Iterator[Sequence[Row]]:
    """Yield the oldest entries of a stream, step by step; the caller moves them."""
    while True:
        rows: Any = carrier.client.xrange(key, count=STEP)
        if not rows:
            return
        yield rows


def _carry(carrier: Carrier, name: str, target: str, mark: str, rows: Sequence[Row]) -> int:
    new = carrier.place
    key = new.stream(target) if name else getattr(new, target)
    args: list[Value] = [target if name else ""]
    marks = [f"{mark}|{entry_id.decode()}" for entry_id, _ in rows]
    for one, (entry_id, fields), backoff in zip(
        marks, rows, _backoffs(carrier, name, rows), strict=True
    ):
        args += (one, entry_id, backoff, len(fields))
        args += [each for pair in fields.items() for each in pair]
    if rows:
        keys: list[str | bytes] = [new.counts, new.streams, carrier.carried, new.aside, key]
        carrier.new.run("entries_in", keys, args)
    removed = remove_rows(carrier, mark, [entry_id.decode() for entry_id, _ in rows])
    if marks:
        carrier.forget(marks)
    return removed


def _backoffs(carrier: Carrier, name: str, rows: Sequence[Row]) -> list[bytes]:
    if not name:
        return [b""] * len(rows)
    aside = carrier.old.place.aside
    found = ask_each(
        carrier.client, rows, lambda pipe, row: pipe.hget(aside, f"{name}|{row[0].decode()}")
    )
    return [each or b"" for each in found]


def remove_rows(carrier: Carrier, part: str, ids: Sequence[str]) -> int:
    """Remove entries that have arrived; return how many were still in the source.

    `part` is the name of their stream, or the part of the partition, e.g. `history`.
    """
    old = carrier.old.place
    name = "" if part in LOGS else part
    key = old.stream(name) if name else getattr(old, part)
    out: list[str | bytes] = [old.counts, old.streams, old.holds, old.aside, old.orphans, key]
    return carrier.old.run("entries_out", out, [name, *ids])

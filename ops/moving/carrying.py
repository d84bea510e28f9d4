"""Moving the contents of a partition to others: of another destination, or with other numbers.

Each part is copied, marked as copied, and only then removed, with one script for each of the
partitions. So it can be repeated from wherever it was interrupted.

Carrying the entries of streams over: deliveries that wait, and lines such as the history's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, TypeVar

import orjson
from redis import Redis

from segrelay.ops.dead_letters.reading import (
    NUMBERS_CHANGED,
    dead_letter_id_in,
    digest_of,
    parse_dead_letter,
)
from segrelay.ops.moving.leases import HeldCall, HeldLease, run_held
from segrelay.ops.state import opened
from segrelay.ops.state.partitions import ask_each
from segrelay.worker.batch.partition import IntendedDelivery, Intent, LedgerText
from segrelay.worker.contract.events import decode_header
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys
from segrelay.worker.contract.keys import digest_of as profile_digest
from segrelay.worker.contract.ledger import unpack
from segrelay.worker.contract.redis.connection import redis_errors
from segrelay.worker.contract.redis.scanning import scan_fields
from segrelay.worker.contract.redis.scripts import ScriptCall, Value
from segrelay.worker.core.ledger import merged
from segrelay.worker.errors import PartitionsChange, PayloadRefused

_T = TypeVar("_T")
STEP: Final = 500
COUNTS: Final = "counts"
DEAD_LETTER: Final = "letter"
"""The word in the marks of moved dead letters, `letter|id`; those of entries are `stream|id`."""
_DEAD_LETTERS: Final = 50
"""Letters moved in one call: few, because a letter may hold a profile of a megabyte."""
Routing = Callable[[bytes, bytes], Iterable[int]]
"""A function that returns the indices of the targets for a field and its value, or for a member."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """Moves the contents of a partition; it holds its lease and those of all targets.

    Args:
        choose: Returns the target of a profile's digest, by its index.
        home: The target of what belongs to no profile, by its index.
        prefix: Of the marks of what has come; two partitions may have entries of the same id.
    """

    client: Redis
    old: HeldLease
    targets: Sequence[HeldLease]
    retention_ms: int
    choose: Callable[[bytes], int] = lambda _: 0
    home: int = 0
    prefix: str = ""

    def carried(self, target: int) -> str:
        """Return the key under which a target records the parts that have arrived."""
        return self.targets[target].place.carried(self.old.place.destination)

    def place(self, target: int) -> PartitionKeys:
        """Return the keys of a target."""
        return self.targets[target].place

    def target_of(self, digest: str) -> int:
        """Return the index of the target for a digest (hex); "" stands for no profile."""
        if len(self.targets) == 1:
            return 0
        return self.choose(bytes.fromhex(digest)) if digest else self.home

    def by_digest(self, field: bytes, _: bytes) -> Iterable[int]:
        """Return the target of a field whose name begins with the digest (hex) of a profile."""
        return (self.target_of(field[: 2 * DIGEST_BYTES].decode()),)

    def by_key(self, profile_key: bytes, _: bytes) -> Iterable[int]:
        """Return the target of a field whose name is the key of a profile."""
        return (self.target_of(profile_digest(profile_key.decode()).hex()),)

    def by_dead_letter(self, _: bytes, text: bytes) -> Iterable[int]:
        """Return the target of a dead letter, by the profile that it is about."""
        return (self.target_of(digest_of(parse_dead_letter(text))),)

    def everywhere(self, *_: bytes) -> Iterable[int]:
        """Return all targets, for a field that each of them needs."""
        return range(len(self.targets))

    def merge_ledgers(self, digests: Iterable[bytes]) -> None:
        """Merge the records of profiles in the old ledger into the new ones.

        The old one stays as it is.
        """
        for part in in_parts(list(dict.fromkeys(digests)), STEP):
            writes: dict[int, tuple[list[str | bytes], list[Value]]] = {}
            for digest, target, theirs, left_ms, ours in self._ledgers(part):
                if theirs is None or theirs == ours:
                    continue
                if ours:
                    text, lasts = LedgerText.of(merged(unpack(ours), unpack(theirs)))
                else:
                    text, lasts = theirs, left_ms < 0
                if text != ours:
                    keys, args = writes.setdefault(target, ([], [self.retention_ms]))
                    keys.append(self.place(target).ledger(digest))
                    args += (text, int(lasts))
            run_held(
                self.client,
                "ledgers_in",
                [HeldCall(self.targets[at], *write) for at, write in writes.items()],
            )

    def _ledgers(
        self, digests: Sequence[bytes]
    ) -> list[tuple[bytes, int, bytes | None, int, bytes | None]]:
        """Read ledger records: digest, target, old text, its time to live (ms), new text."""
        chosen = [self.choose(digest) for digest in digests]
        old = self.old.place
        found = ask_each(
            self.client,
            zip(digests, chosen, strict=True),
            lambda pipe, one: pipe.get(old.ledger(one[0])),
            lambda pipe, one: pipe.pttl(old.ledger(one[0])),
            lambda pipe, one: pipe.get(self.place(one[1]).ledger(one[0])),
        )
        return list(zip(digests, chosen, found[::3], found[1::3], found[2::3], strict=True))

    def hash(
        self, suffix: str, route: Routing, change: Callable[[bytes], bytes] | None = None
    ) -> None:
        """Move the fields of a hash; fields that a target has already stay.

        Args:
            suffix: What stands behind the tag in the hash's key.
            route: Returns the targets of a field.
            change: Returns the value that a field has from now on.
        """
        for part in scan_fields(self.client, f"{self.old.place.tag}{suffix}"):
            self.fields(suffix, part, route, change)

    def fields(
        self,
        suffix: str,
        part: Sequence[tuple[bytes, bytes]],
        route: Routing,
        change: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Move some fields of a hash to the targets that a function chooses."""
        key = f"{self.old.place.tag}{suffix}"
        into: dict[int, list[Value]] = {}
        for field, value in part:
            for target in route(field, value):
                into.setdefault(target, []).extend((field, change(value) if change else value))
        self._add(suffix, "hash", self._kept_ms(key), into)
        pairs: list[Value] = [each for pair in part for each in pair]
        self.old.run("fields_out", [key], ["hash", *pairs])

    def arrival_marks(self, suffix: str) -> None:
        """Move the marks of a person's letters that have come from their former identity.

        They tell nothing of the person, so that every target gets them, under the ids that the
        letters would have there; they lapse where nobody deletes them.
        """
        key = f"{self.old.place.tag}{suffix}"
        for part in scan_fields(self.client, key):
            into: dict[int, list[Value]] = {}
            for field, value in part:
                kind, _, dead_letter = field.decode().partition("|")
                for at, target in enumerate(self.targets):
                    mark = f"{kind}|{dead_letter_id_in(target.place, dead_letter)}"
                    into.setdefault(at, []).extend((mark, value))
            self._add(suffix, "hash", str(self.retention_ms), into)
            pairs: list[Value] = [each for pair in part for each in pair]
            self.old.run("fields_out", [key], ["hash", *pairs])

    def _add(self, suffix: str, kind: str, kept_ms: str, into: Mapping[int, list[Value]]) -> None:
        calls = [
            HeldCall(
                self.targets[target], [f"{self.place(target).tag}{suffix}"], [kind, kept_ms, *args]
            )
            for target, args in into.items()
        ]
        run_held(self.client, "fields_in", calls)

    def intents(self) -> None:
        """Move the intents, split by target: each gets the deliveries of its own profiles."""
        old = self.old.place
        with redis_errors():
            ends: Any = self.client.hgetall(old.open)
        for part in scan_fields(self.client, old.intents):
            intents: dict[int, list[Value]] = {}
            opened: dict[int, list[Value]] = {}
            for intent_id, text in part:
                for target, own in self._shares(intent_id, text).items():
                    intents.setdefault(target, []).extend((intent_id, own))
                    if intent_id in ends:
                        opened.setdefault(target, []).extend((intent_id, ends[intent_id]))
            self._add("open", "hash", "", opened)
            self._add("intents", "hash", "", intents)
            pairs: list[Value] = [each for pair in part for each in pair]
            self.old.run("fields_out", [old.intents], ["hash", *pairs])
        left: list[Value] = [each for pair in ends.items() for each in pair]
        if left:
            self.old.run("fields_out", [old.open], ["hash", *left])

    def _shares(self, intent_id: bytes, text: bytes) -> dict[int, bytes]:
        if len(self.targets) == 1:
            return {0: text}
        intent = Intent.loads(intent_id.decode(), text, 0)
        shares: dict[int, list[IntendedDelivery]] = {}
        for one in intent.deliveries:
            shares.setdefault(self.choose(one.digest), []).append(one)
        return {
            target: replace(intent, deliveries=tuple(own)).dumps() for target, own in shares.items()
        }

    def positions(self, suffix: str) -> None:
        """Copy the positions of jobs to all targets, then remove them.

        If a target has one already, the later one holds; at the same one, what was added there is
        what both say.
        """
        key = f"{self.old.place.tag}{suffix}"
        with redis_errors():
            stored: Any = self.client.hgetall(key)
        rows = [
            (job, position, stored.get(job + b"|chunk", b""))
            for job, position in stored.items()
            if not job.endswith(b"|chunk")
        ]
        if rows:
            args: list[Value] = [each for row in rows for each in row]
            everywhere = dict.fromkeys(range(len(self.targets)), args)
            self._add(suffix, "positions", self._kept_ms(key), everywhere)
            self.old.run(
                "fields_out", [key], ["hash", *(e for pair in stored.items() for e in pair)]
            )

    def members(self, part: str, route: Routing) -> None:
        """Move the members of a sorted set."""
        key = getattr(self.old.place, part)
        kept_ms = self._kept_ms(key)
        with redis_errors():
            rows: Any = self.client.zrange(key, 0, -1, withscores=True)
        for some in in_parts(rows, STEP):
            into: dict[int, list[Value]] = {}
            for member, score in some:
                for target in route(member, b""):
                    into.setdefault(target, []).extend((member, score))
            self._add(part, "set", kept_ms, into)
            pairs: list[Value] = [each for pair in some for each in pair]
            self.old.run("fields_out", [key], ["set", *pairs])

    def _kept_ms(self, key: str) -> str:
        with redis_errors():
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
        groups: dict[int, list[dict[str, Any]]] = {}
        for dead_letter in dead_letters:
            groups.setdefault(self.target_of(digest_of(dead_letter)), []).append(dead_letter)
        for target, group in groups.items():
            new = self.place(target)
            keys = (new.counts, new.dead_letters, new.lettertimes, new.causes, new.lease)
            call = ScriptCall((*keys, self.carried(target)), self._arrived(group, new))
            if NUMBERS_CHANGED in opened.run(self.client, "import", [call], replicated=True):
                raise PartitionsChange
        self.dead_letters_left(dead_letters)
        for target, group in groups.items():
            ids = [
                dead_letter_id_in(self.place(target), dead_letter["id"]) for dead_letter in group
            ]
            self.forget(target, [f"{DEAD_LETTER}|{one}" for one in ids])

    def dead_letters_left(self, dead_letters: Iterable[dict[str, Any]]) -> None:
        """Remove letters from the old partition that have arrived at a target, and their counts."""
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
        old, new = self.old.place, self.place(self.home)
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
        self.targets[self.home].run(
            "counts_in",
            [new.counts, new.jobtimes, new.responseslost, self.carried(self.home)],
            [f"{self.prefix}{COUNTS}", mark, self.retention_ms, *pairs],
        )
        self.counts_left(mark)
        self.forget(self.home, [f"{self.prefix}{COUNTS}"])

    def counts_left(self, mark: bytes) -> None:
        """Remove the counts that have arrived under this mark from the old partition."""
        old = self.old.place
        keys: list[str | bytes] = [old.counts, old.leaving, old.jobtimes, old.responseslost]
        self.old.run("counts_out", keys, [mark])

    def forget(self, target: int, marks: Sequence[str]) -> None:
        """Delete the marks of moved parts, once they are gone from the old partition."""
        with redis_errors():
            self.client.hdel(self.carried(target), *marks)


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
        for row, backoff in zip(group, _backoffs(name, group), strict=True):
            values = [*row.fields.items()]
            args += (_mark(row, mark), row.entry_id, backoff, len(values))
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


def _backoffs(name: str, rows: Sequence[SourceRow]) -> list[bytes]:
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

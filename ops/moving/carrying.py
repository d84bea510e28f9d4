"""Moving the contents of a partition to the same partition of another destination.

Each part is copied, marked as copied, and only then removed, with one script for each of the two
partitions. So it can be repeated from wherever it was interrupted.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from redis import Redis

from ops.moving.held import HeldLease
from ops.state import scripts
from worker.batch.partition import LedgerText
from worker.contract.keys import DIGEST_BYTES, PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import scan_fields
from worker.contract.redis.scripts import ScriptCall, Value
from worker.core.ledger import merged, unpack

_T = TypeVar("_T")
STEP: Final = 500
_LETTERS: Final = 50
"""Letters moved in one call; one may hold a profile of a megabyte."""
WAITING_FIELDS: Final = ("h", "p")


@dataclass(frozen=True, slots=True)
class Carrier:
    """Moves the contents of a partition; it holds the leases of both partitions.

    Args:
        old: The lease of the partition that is emptied.
        new: The lease of the partition that gets the contents.
        retention_ms: The time for which a record is kept.
    """

    client: Redis
    old: HeldLease
    new: HeldLease
    retention_ms: int

    @property
    def places(self) -> tuple[PartitionKeys, PartitionKeys]:
        """Return the keys of both partitions."""
        return self.old.place, self.new.place

    def merge_ledgers(self, digests: Iterable[bytes]) -> None:
        """Merge the records of profiles in the old ledger into the new one.

        The old one stays as it is.

        Raises:
            FormatUnknown: Another version of segrelay wrote one.
            OperationsMustAct: The lease was taken over.
        """
        new = self.new.place
        for part in in_parts(list(dict.fromkeys(digests)), STEP):
            pairs = self._ledgers(part)
            keys: list[str | bytes] = []
            args: list[Value] = []
            for digest, (theirs, ours) in zip(part, pairs, strict=True):
                if not theirs:
                    continue
                text, lasts = LedgerText.of(merged(unpack(ours), unpack(theirs)))
                if text != ours:
                    keys.append(new.ledger(digest))
                    args += (text, 0 if lasts else self.retention_ms)
            if keys:
                self.new.run("ledgers_in", keys, args)

    def _ledgers(self, digests: Sequence[bytes]) -> list[tuple[bytes | None, bytes | None]]:
        old, new = self.places
        with redis_errors():
            theirs: Any = self.client.mget([old.ledger(digest) for digest in digests])
            ours: Any = self.client.mget([new.ledger(digest) for digest in digests])
        return list(zip(theirs, ours, strict=True))

    def entries(self, name: str, target: str, ids: Sequence[str]) -> int:
        """Carry these deliveries of a stream over to the stream `target`; returns how many."""
        return sum(
            self._rows(self.old.place.stream(name), name, target, rows)
            for rows in self._read(self.old.place.stream(name), ids)
        )

    def _read(self, key: str, ids: Sequence[str]) -> Iterator[list[Any]]:
        for part in in_parts(ids, STEP):
            with redis_errors():
                pipe = self.client.pipeline(transaction=False)
                for entry_id in part:
                    pipe.xrange(key, entry_id, entry_id)
                yield [row for rows in pipe.execute() for row in rows]

    def stream(self, name: str) -> int:
        """Carry all deliveries of a stream over; returns how many."""
        key = self.old.place.stream(name)
        return sum(self._rows(key, name, name, rows) for rows in self._heads(key))

    def _heads(self, key: str) -> Iterator[list[Any]]:
        """Yield the first entries of a stream until it is empty; the caller moves them."""
        while True:
            with redis_errors():
                rows: Any = self.client.xrange(key, count=STEP)
            if not rows:
                return
            yield rows

    def _rows(self, key: str, name: str, target: str, rows: Sequence[Any]) -> int:
        if not rows:
            return 0
        old, new = self.places
        ids = [entry_id.decode() for entry_id, _ in rows]
        setbacks: Any = self.client.hmget(old.aside, [f"{name}|{one}" for one in ids])
        args: list[Value] = [target, name, *WAITING_FIELDS]
        for (entry_id, fields), setback in zip(rows, setbacks, strict=True):
            args += (entry_id, setback or b"", *(fields.get(f.encode(), b"") for f in "hp"))
        carried = new.carried(old.destination)
        into: list[str | bytes] = [new.counts, new.streams, carried, new.aside, new.stream(target)]
        self.new.run("entries_in", into, args)
        out: list[str | bytes] = [
            old.counts, old.streams, old.holds, old.aside, old.orphans, key,
        ]  # fmt: skip
        removed = self.old.run("entries_out", out, [name, *ids])
        self._forget([f"{name}|{one}" for one in ids])
        return removed

    def log(self, part: str, field: str) -> None:
        """Move a stream whose entries are no deliveries, such as the history."""
        old, new = self.places
        key, target = getattr(old, part), getattr(new, part)
        for rows in self._heads(key):
            args: list[Value] = ["", part, field, ""]
            for entry_id, fields in rows:
                args += (entry_id, b"", fields.get(field.encode(), b""), b"")
            carried = new.carried(old.destination)
            self.new.run("entries_in", [new.counts, new.streams, carried, new.aside, target], args)
            ids = [entry_id.decode() for entry_id, _ in rows]
            out: list[str | bytes] = [
                old.counts, old.streams, old.holds, old.aside, old.orphans, key,
            ]  # fmt: skip
            self.old.run("entries_out", out, ["", *ids])
            self._forget([f"{part}|{one}" for one in ids])

    def hash(self, key: str, target: str) -> None:
        """Move the fields of a hash; fields that the new one has already stay."""
        for part in scan_fields(self.client, key):
            pairs: list[Value] = [each for pair in part for each in pair]
            self.new.run("fields_in", [target], ["hash", self._kept_ms(key), *pairs])
            self.old.run("fields_out", [key], ["hash", *pairs])

    def positions(self, key: str, target: str) -> None:
        """Move the positions of jobs; if both have one, the later one holds."""
        with redis_errors():
            stored: Any = self.client.hgetall(key)
        rows = [
            (job, position, stored.get(job + b"|chunk", b""))
            for job, position in stored.items()
            if not job.endswith(b"|chunk")
        ]
        if rows:
            args: list[Value] = [each for row in rows for each in row]
            self.new.run("fields_in", [target], ["positions", self._kept_ms(key), *args])
            self.old.run(
                "fields_out", [key], ["hash", *(e for pair in stored.items() for e in pair)]
            )

    def members(self, part: str) -> None:
        """Move the members of a sorted set."""
        old, new = self.places
        key, target = getattr(old, part), getattr(new, part)
        with redis_errors():
            rows: Any = self.client.zrange(key, 0, -1, withscores=True)
        for some in in_parts(rows, STEP):
            pairs: list[Value] = [each for pair in some for each in pair]
            self.new.run("fields_in", [target], ["set", self._kept_ms(key), *pairs])
            self.old.run("fields_out", [key], ["set", *pairs])

    def _kept_ms(self, key: str) -> str:
        with redis_errors():
            left: Any = self.client.pttl(key)
        return str(left) if left > 0 else ""

    def letters(self) -> int:
        """Carry the dead letters over, with their counts; returns how many there were."""
        old, new = self.places
        count = 0
        for found in scan_fields(self.client, old.letters, _LETTERS):
            for some in in_parts(found, _LETTERS):
                texts = [orjson.loads(text) for _, text in some]
                keys = (new.counts, new.letters, new.lettertimes, new.causes)
                call = ScriptCall((*keys, new.carried(old.destination)), self._arrived(texts))
                scripts.run(self.client, "import", [call])
                gone: list[Value] = []
                for letter in texts:
                    gone += (letter["id"], letter["cause"], letter["stream"], letter["reason"])
                where: list[str | bytes] = [old.counts, old.letters, old.lettertimes, old.causes]
                self.old.run("letters_out", where, gone)
                self._forget([f"letter|{self._renamed(letter['id'])}" for letter in texts])
                count += len(texts)
        return count

    def _renamed(self, letter_id: str) -> str:
        """Return a letter's id in the new destination: an id begins with its place."""
        old, new = self.places
        return new.destination + letter_id.removeprefix(old.destination)

    def _arrived(self, letters: Sequence[dict[str, Any]]) -> list[Value]:
        """Return the arguments of the script that adds letters."""
        old, new = self.places
        args: list[Value] = []
        with redis_errors():
            pipe = self.client.pipeline(transaction=False)
            for letter in letters:
                pipe.zscore(old.lettertimes, letter["id"])
                pipe.hget(old.causes, letter["cause"])
            told = pipe.execute()
        for letter, died, sample in zip(letters, told[::2], told[1::2], strict=True):
            there = {**letter, "id": self._renamed(letter["id"]), "destination": new.destination}
            args += (there["id"], orjson.dumps(there), round(died or letter["last_at_ms"]))
            args += (letter["cause"], sample or b"{}", letter["stream"], letter["reason"])
        return args

    def counts(self) -> None:
        """Move the counts, except those of deliveries that wait in the old partition."""
        old, new = self.places
        names = (old.lease, old.counts, old.streams, old.leaving, old.jobtimes, old.responseslost)
        args = (self.old.token, old.tag, secrets.token_hex(8))
        (answer,) = scripts.run(self.client, "counts_leave", [ScriptCall(names, args)])
        leaving = _pairs(answer)
        mark = leaving.pop(b"id", b"")
        if not leaving:
            return
        carried = new.carried(old.destination)
        pairs: list[Value] = [each for pair in leaving.items() for each in pair]
        self.new.run(
            "counts_in",
            [new.counts, new.jobtimes, new.responseslost, carried],
            [mark, self.retention_ms, *pairs],
        )
        self.old.run(
            "counts_out", [old.counts, old.leaving, old.jobtimes, old.responseslost], [mark]
        )
        self._forget(["counts"])

    def _forget(self, marks: Sequence[str]) -> None:
        """Delete the marks of moved parts, once they are gone from the old partition."""
        old, new = self.places
        with redis_errors():
            self.client.hdel(new.carried(old.destination), *marks)


def _pairs(answer: Any) -> dict[bytes, bytes]:
    rows = answer if isinstance(answer, list) else []
    return dict(zip(rows[::2], rows[1::2], strict=True))


def in_parts(rows: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield parts of a list, each of this size at most."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def digest_in(key: bytes, place: PartitionKeys) -> bytes | None:
    """Return the digest in the key of a record; None if it is another key of the partition."""
    start = place.ledger(b"")
    digest = key.removeprefix(start)
    is_ledger = key.startswith(start) and len(digest) == DIGEST_BYTES
    return digest if is_ledger and key != place.lettertimes.encode() else None

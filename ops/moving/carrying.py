"""Moving waiting deliveries to the same partition of another destination, for `rename trigger`.

Each step is copied, marked as copied, and only then removed, with one script for each of the
partitions. So it can be repeated from wherever it was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from segrelay.ops.moving.leases import HeldLease
from segrelay.ops.state.partitions import ask_each
from segrelay.worker.batch.partition import LedgerText
from segrelay.worker.contract.ledger import lapses_at_ms, lasting, unpack
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import Value
from segrelay.worker.core.ledger import merged

_T = TypeVar("_T")
STEP: Final = 500


@dataclass(frozen=True, slots=True)
class Carrier:
    """Moves what waits in one partition to another one.

    Args:
        old: The lease of the partition that is left.
        new: The lease of the partition that gets it.
    """

    client: Redis
    old: HeldLease
    new: HeldLease

    def merge_ledgers(self, digests: Iterable[bytes], retention_ms: int) -> None:
        """Merge the records of profiles in the old ledger into the new ones.

        The old one stays as it is.
        """
        for part in in_parts(list(dict.fromkeys(digests)), STEP):
            names: list[str | bytes] = []
            args: list[Value] = [retention_ms]
            for digest, theirs, ours in self._ledgers(part):
                if theirs is None or theirs == ours:
                    continue
                if ours:
                    text, lasts = LedgerText.of(merged(unpack(ours), unpack(theirs)))
                else:
                    text, lasts = lasting(theirs), not lapses_at_ms(theirs)
                if ours is None or text != lasting(ours):
                    names.append(self.new.partition.ledger(digest))
                    args += (text, int(lasts))
            if names:
                self.new.run("ledgers_in", names, args)

    def _ledgers(self, digests: Sequence[bytes]) -> list[tuple[bytes, bytes | None, bytes | None]]:
        """Read ledger records: digest, old text, new text."""
        old, new = self.old.partition, self.new.partition
        found = ask_each(
            self.client,
            digests,
            lambda pipe, digest: pipe.get(old.ledger(digest)),
            lambda pipe, digest: pipe.get(new.ledger(digest)),
        )
        return list(zip(digests, found[::2], found[1::2], strict=True))

    def carry_entries(self, name: str, target: str, ids: Sequence[str]) -> int:
        """Move these deliveries of a stream to the stream `target`; return their number."""
        key = self.old.partition.stream(name)
        moved = 0
        for part in in_parts(ids, STEP):
            found = ask_each(self.client, part, lambda pipe, one: pipe.xrange(key, one, one))
            moved += self._carry(name, target, [row for each in found for row in each])
        return moved

    def _carry(
        self, name: str, target: str, rows: Sequence[tuple[bytes, Mapping[bytes, bytes]]]
    ) -> int:
        if not rows:
            return 0
        old, new = self.old.partition, self.new.partition
        aside = ask_each(
            self.client,
            rows,
            lambda pipe, row: pipe.hget(old.aside, f"{name}|{row[0].decode()}"),
        )
        marks = [f"{name}|{entry_id.decode()}" for entry_id, _ in rows]
        args: list[Value] = [target]
        for mark, (entry_id, fields), backoff in zip(marks, rows, aside, strict=True):
            args += (mark, entry_id, backoff or b"", len(fields))
            args += [each for pair in fields.items() for each in pair]
        arrived = new.carried(old.id)
        keys = [new.counts, new.streams, arrived, new.aside, new.stream(target)]
        self.new.run("entries_in", keys, args)
        removed = remove_entries(self.old, name, [entry_id.decode() for entry_id, _ in rows])
        self.client.hdel(arrived, *marks)
        return removed


def remove_entries(lease: HeldLease, name: str, ids: Sequence[str]) -> int:
    """Remove deliveries that have arrived elsewhere; return how many were still in the stream."""
    old = lease.partition
    out = [old.counts, old.streams, old.holds, old.aside, old.orphans, old.stream(name)]
    return lease.run("entries_out", out, [name, *ids])


def in_parts(rows: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield a list in parts of at most `size` items."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]

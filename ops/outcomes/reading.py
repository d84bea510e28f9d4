"""Reading the outcome log, and the cursors of those who export from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple

from segrelay.ops.state.partitions import (
    OUTCOMES,
    REASONED,
    Counts,
    add_up,
    all_partitions,
    ask_each,
    counts_of,
    snapshots,
)
from segrelay.ops.status.problems import counted
from segrelay.producer.publishing.published import Published
from segrelay.producer.steps import StepState
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.outcomes import OutcomeRow, unpack
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings

_READ_AT_ONCE: Final = 20
"""Entries read in one call: one holds the rows of up to some thousand deliveries."""
_NEWEST: Final = 5
"""The newest entries of each partition among which the newest rows are."""


class Range(NamedTuple):
    """A part of the log of one partition, from one id to another, as XRANGE takes them."""

    partition: PartitionKeys
    first: str
    last: str


def entries(client: Redis, one: Range) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    """Yield the entries of a range."""
    first = one.first
    while True:
        found: Any = client.xrange(one.partition.outcomes, first, one.last, count=_READ_AT_ONCE)
        yield from found
        if len(found) < _READ_AT_ONCE:
            return
        first = f"({found[-1][0].decode()}"


def rows_of(
    client: Redis, ranges: Iterable[Range], between: Callable[[], None] = lambda: None
) -> Iterator[list[OutcomeRow]]:
    """Yield the rows of ranges, those of each entry in one list.

    Args:
        client: A connection to the Redis of the log.
        ranges: The parts of the log.
        between: Called before each entry.
    """
    for one in ranges:
        for entry_id, entry in entries(client, one):
            between()
            yield list(unpack(one.partition, entry_id, entry))


def newest_rows(client: Redis, partitions: Sequence[PartitionKeys]) -> Iterator[OutcomeRow]:
    """Yield the newest rows of partitions, the newest first."""
    answers = ask_each(
        client, partitions, lambda pipe, at: pipe.xrevrange(at.outcomes, count=_NEWEST)
    )
    found = [
        (entry_id, at, entry)
        for at, rows in zip(partitions, answers, strict=True)
        for entry_id, entry in rows
    ]
    for entry_id, at, entry in sorted(found, key=lambda one: -int(one[0].partition(b"-")[0])):
        yield from reversed(list(unpack(at, entry_id, entry)))


class Ended(NamedTuple):
    """The outcomes of deliveries that somebody waited for.

    Attributes:
        accepted: The number of all of them.
        waiting: The number of those that still wait.
        counts: By outcome, as far as it is known.
        show: The command that shows those that died; "" = none did.
    """

    accepted: int
    waiting: int
    counts: Counts
    show: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        kinds = (*OUTCOMES[1:], *(f"{kind}_by_reason" for kind in REASONED))
        found = {kind: getattr(self.counts, kind) for kind in kinds}
        return {"accepted": self.accepted, "waiting": self.waiting, **found}

    def lines(self) -> Iterator[str]:
        """Yield a sentence with the outcomes, and the command that shows the dead letters."""
        parts = []
        for kind in OUTCOMES[1:]:
            if count := self.counts.of(kind):
                reasons = self.counts.by_reason(kind) if kind in REASONED else {}
                words = next(iter(reasons)) if len(reasons) == 1 else counted(reasons)
                parts.append(f"{count:,} {kind}" + (f": {words}" if words else ""))
        settled = self.accepted - self.waiting
        if settled > self.counts.settled:
            parts.append(f"{settled - self.counts.settled:,} that the outcome log has no row of")
        if self.accepted:
            yield f"settled {settled:,} of {self.accepted:,}: {', '.join(parts)}".removesuffix(": ")
        if self.show:
            yield f"→ {self.show}"


def read_ended(client: Redis, settings: Settings, sent: str | Published, waiting: int) -> Ended:
    """Read the outcomes of a job (its name), or of published deliveries, whose people are known."""
    partitions = all_partitions(client, settings)
    if isinstance(sent, str):
        counts = counts_of(*add_up(snapshots(client, partitions), settings).by_job[sent].values())
        show = f"segrelay dlq list --job {sent}" if counts.dead else ""
        return Ended(counts.accepted, counts.waiting, counts, show)
    people = {digest.hex() for digest in sent.people}
    tally: Counter[str] = Counter()
    died: list[tuple[PartitionKeys, int]] = []
    for at in partitions:
        begun_ms = {
            key.removeprefix(at.stream("")): int(added.first.partition("-")[0])
            for key, added in sent.entries.items()
            if key.startswith(at.tag)
        }
        own = [Range(at, str(min(begun_ms.values())), "+")] if begun_ms else []
        for row in chain.from_iterable(rows_of(client, own)):
            is_ours = f"{row.lane}|{row.trigger}" in begun_ms and row.person in people
            if is_ours and row.counts > 0:
                reason = f"|{row.reason}" if row.outcome in REASONED else ""
                tally[row.outcome + reason] += 1
                if row.outcome == "dead":
                    died.append((at, row.time_ms))
    letters: Any = []
    if len(died) == 1:
        [(at, died_ms)] = died
        letters = client.zrangebyscore(at.dead_letter_times, died_ms, died_ms)
    is_one = len(letters) == 1
    show = f"segrelay dlq show {letters[0].decode()}" if is_one else "segrelay dlq causes"
    counts = counts_of(tally)
    return Ended(sent.accepted, waiting, counts, show if counts.dead else "")


def rows_about(
    client: Redis, partition: PartitionKeys, people: Collection[str]
) -> Iterator[OutcomeRow]:
    """Yield the rows of a partition about people, by their digests (hex), the oldest first."""
    for entry_id, entry in entries(client, Range(partition, "-", "+")):
        yield from unpack(partition, entry_id, entry, people)


def complete_since_ms(client: Redis, partitions: Sequence[PartitionKeys]) -> list[int]:
    """Return, of each partition, the time (ms) from which on no row is gone; 0 = none is."""
    answers = ask_each(client, partitions, lambda pipe, at: pipe.hget(at.recorded, "since"))
    return [int(since or 0) for since in answers]


@dataclass(slots=True)
class LogFollower:
    """Reads the rows that are added to the log after its first look."""

    client: Redis
    settings: Settings
    _after: dict[PartitionKeys, str] = field(default_factory=dict)

    def look(self) -> list[OutcomeRow]:
        """Return the rows that have come since the last look, by time; some wait for the next."""
        partitions = all_partitions(self.client, self.settings)
        if not self._after:
            self._after = last_ids(self.client, partitions)
            return []
        answers = ask_each(
            self.client,
            partitions,
            lambda pipe, at: pipe.xrange(
                at.outcomes, f"({self._after.get(at, '0-0')}", count=_READ_AT_ONCE
            ),
        )
        rows: list[OutcomeRow] = []
        for at, found in zip(partitions, answers, strict=True):
            for entry_id, entry in found:
                rows += unpack(at, entry_id, entry)
                self._after[at] = entry_id.decode()
        return sorted(rows, key=lambda row: row.time_ms)


def last_ids(client: Redis, partitions: Sequence[PartitionKeys]) -> dict[PartitionKeys, str]:
    """Return the id of the last entry of each partition's log; `0-0` = there is none."""
    answers = ask_each(client, partitions, lambda pipe, at: pipe.xrevrange(at.outcomes, count=1))
    return {
        at: rows[0][0].decode() if rows else "0-0"
        for at, rows in zip(partitions, answers, strict=True)
    }


@dataclass(slots=True)
class Cursor(StepState):
    """The progress of the exports under a name.

    Args:
        after: By a partition's tag, the id of the last entry that left.
        until: By a partition's tag, the id of the last entry of the file that is being written.
        file: Its address; "" = none is.
        rows: The rows that have left.
    """

    begins_anew = False
    after: dict[str, str] = field(default_factory=dict)
    until: dict[str, str] = field(default_factory=dict)
    file: str = ""
    rows: int = 0

    def has_missed(self, partition: PartitionKeys, since_ms: int) -> bool:
        """Say whether rows of a partition are gone that have not left."""
        after = self.after.get(partition.tag)
        return after is not None and since_ms > int(after.partition("-")[0]) + 1

    def ranges(self, partitions: Collection[PartitionKeys]) -> list[Range]:
        """Return the parts of the log that the file covers."""
        return [
            Range(at, f"({self.after.get(at.tag, '0-0')}", self.until[at.tag])
            for at in partitions
            if at.tag in self.until
        ]

"""Reading the rows about outcomes that Redis keeps, and how far they are written to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import orjson

from segrelay.ops.state.partitions import ask_each, known_destinations
from segrelay.producer.steps import StepStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.outcomes import OutcomeRow, Recording, unpack
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings

_READ_AT_ONCE: Final = 20
"""Entries read in one call: one holds the rows of up to some thousand deliveries."""


class Position(NamedTuple):
    """A position in a partition's stream of outcomes: an entry, and what was added up to it.

    Attributes:
        size: In bytes.
    """

    entry_id: str = "0-0"
    rows: int = 0
    size: int = 0

    @classmethod
    def of(cls, entry: tuple[bytes, Mapping[bytes, bytes]]) -> Position:
        """Return the position of an entry."""
        entry_id, fields = entry
        return cls(entry_id.decode(), int(fields[b"t"]), int(fields[b"b"]))


class Recorded(NamedTuple):
    """The counts and times of the rows of one partition.

    Attributes:
        rows, size: All rows that were ever added, and their bytes.
        gone_rows, gone_size: Of these, those that are not there any more.
        since_ms: The time from which on nothing is missing; 0 = nothing was ever recorded.
        dropped: Rows that went for want of room, and were in no file.
        dropped_ms: The time when the last of them went.
        written: The position up to which the rows are in files.
    """

    partition: PartitionKeys
    rows: int
    size: int
    gone_rows: int
    gone_size: int
    since_ms: int
    dropped: int
    dropped_ms: int
    written: Position

    @property
    def unwritten_rows(self) -> int:
        """Return how many rows are there and in no file."""
        return self.rows - max(self.written.rows, self.gone_rows)

    @property
    def unwritten_size(self) -> int:
        """Return how many bytes of rows are there and in no file."""
        return self.size - max(self.written.size, self.gone_size)


_FIELDS: Final = (
    "rows", "bytes", "gone_rows", "gone_bytes", "since", "dropped", "dropped_ms",
    "written", "written_rows", "written_bytes",
)  # fmt: skip


def read_recorded(client: Redis, settings: Settings) -> list[Recorded]:
    """Return what each partition has recorded; also former ones, whose rows stay where they are."""
    names = known_destinations(client, settings)
    numbers = range(settings.redis.numbering.numbers.stop)
    partitions = [
        settings.redis.ids.partition(name, number) for name in names for number in numbers
    ]
    answers = ask_each(client, partitions, lambda pipe, at: pipe.hmget(at.recorded, _FIELDS))
    return [
        _recorded(at, answer) for at, answer in zip(partitions, answers, strict=True) if answer[0]
    ]


def _recorded(partition: PartitionKeys, answer: Sequence[bytes | None]) -> Recorded:
    written = Position((answer[-3] or b"0-0").decode(), int(answer[-2] or 0), int(answer[-1] or 0))
    rows, size, gone_rows, gone_size, since_ms, dropped, dropped_ms = (
        int(count or 0) for count in answer[:-3]
    )
    return Recorded(
        partition, rows, size, gone_rows, gone_size, since_ms, dropped, dropped_ms, written
    )


def first_ms(client: Redis, found: Iterable[Recorded]) -> int:
    """Return the time of the first row that is in no file, in ms; 0 = there is none."""
    late = [one for one in found if one.unwritten_rows]
    answers = ask_each(
        client,
        late,
        lambda pipe, one: pipe.xrange(
            one.partition.outcomes, f"({one.written.entry_id}", "+", count=1
        ),
    )
    times = [int(rows[0][0].partition(b"-")[0]) for rows in answers if rows]
    return min(times, default=0)


def entries(
    client: Redis, partition: PartitionKeys, first: str, last: str
) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    """Yield the entries of a partition from one id to another, as XRANGE takes them."""
    while True:
        found: Any = client.xrange(partition.outcomes, first, last, count=_READ_AT_ONCE)
        yield from found
        if len(found) < _READ_AT_ONCE:
            return
        first = f"({found[-1][0].decode()}"


def rows_of(
    client: Redis,
    ranges: Iterable[tuple[PartitionKeys, str, str]],
    between: Callable[[], None] = lambda: None,
) -> Iterator[list[OutcomeRow]]:
    """Yield the rows of ranges of partitions, those of an entry at once.

    Args:
        client: Redis.
        ranges: Partitions, each with a first and a last id.
        between: Called before each entry is handed out.
    """
    for partition, first, last in ranges:
        for entry_id, fields in entries(client, partition, first, last):
            between()
            yield list(unpack(partition, entry_id, fields))


@dataclass(slots=True)
class Plan:
    """A file that is being written.

    Args:
        parts: By tag of the partition, the position behind which it begins and its last one.
    """

    name: str
    parts: dict[str, tuple[Position, Position]]

    @property
    def rows(self) -> int:
        """Return the number of rows between the positions."""
        return sum(last.rows - first.rows for first, last in self.parts.values())


@dataclass(slots=True)
class WritingState:
    """The progress of writing outcomes to files.

    Args:
        positions: By tag of the partition, the last entry that is in a file.
        plan: The file that is being written; None = none is.
        files, rows: All that were written.
        last_ms: The time when the last file was written.
        failures: Steps in a row that came to nothing.
        failing_since_ms: The time of the first of them.
        problem: The problem that stopped the last of them.
    """

    positions: dict[str, Position] = field(default_factory=dict)
    plan: Plan | None = None
    files: int = 0
    rows: int = 0
    last_ms: int = 0
    failures: int = 0
    failing_since_ms: int = 0
    problem: str = ""

    def dumps(self) -> bytes:
        """Return the text that Redis keeps."""
        return orjson.dumps(self, default=tuple)

    @classmethod
    def loads(cls, text: bytes) -> Self:
        """Read what `dumps` wrote; b"" = nothing was written yet."""
        stored: dict[str, Any] = orjson.loads(text or b"{}")
        state = cls(**stored)
        state.positions = {tag: Position(*each) for tag, each in state.positions.items()}
        if state.plan:
            plan: Any = state.plan
            parts = {
                tag: (Position(*first), Position(*last))
                for tag, (first, last) in plan["parts"].items()
            }
            state.plan = Plan(plan["name"], parts)
        return state


def store_for(client: Redis) -> StepStore:
    """Return the state and the lock of the writing of outcomes."""
    return StepStore(client, keys.OUTCOMES, "the writing of outcomes")


@dataclass(frozen=True, slots=True)
class OutcomesStanding:
    """The state of the recording and writing of outcomes.

    Args:
        kept_rows, kept_size: Rows in Redis, and their bytes.
        unwritten_rows: The number of these rows that are in no file.
        fullest: The share of its room that the rows of the fullest partition take.
        fullest_unwritten: The largest share of a partition's room that rows in no file take.
        since_ms: The time from which on nothing is missing; 0 = nothing was removed yet.
        dropped, dropped_ms: Rows that went for want of room and were in no file, and when at last.
        writing: The state of the writing of files.
    """

    kept_rows: int = 0
    kept_size: int = 0
    unwritten_rows: int = 0
    fullest: float = 0.0
    fullest_unwritten: float = 0.0
    since_ms: int = 0
    dropped: int = 0
    dropped_ms: int = 0
    writing: WritingState = field(default_factory=WritingState)


def read_outcomes(client: Redis, settings: Settings) -> OutcomesStanding:
    """Return how the recording and writing of outcomes stands."""
    recording = Recording.of(settings)
    if recording is None:
        return OutcomesStanding()
    writing = WritingState.loads(store_for(client).peek())
    found = with_positions(read_recorded(client, settings), writing)
    return OutcomesStanding(
        kept_rows=sum(one.rows - one.gone_rows for one in found),
        kept_size=sum(one.size - one.gone_size for one in found),
        unwritten_rows=sum(one.unwritten_rows for one in found),
        fullest=max((one.size - one.gone_size for one in found), default=0) / recording.most_bytes,
        fullest_unwritten=max((one.unwritten_size for one in found), default=0)
        / recording.most_bytes,
        since_ms=complete_since_ms(found),
        dropped=sum(one.dropped for one in found),
        dropped_ms=max((one.dropped_ms for one in found), default=0),
        writing=writing,
    )


def with_positions(found: Iterable[Recorded], writing: WritingState) -> list[Recorded]:
    """Return what is recorded with the positions up to which it is written."""
    return [
        one._replace(written=writing.positions.get(one.partition.tag, Position())) for one in found
    ]


def complete_since_ms(found: Iterable[Recorded]) -> int:
    """Return the time from which on no row is missing, in ms; 0 = none was removed."""
    return max((one.since_ms for one in found if one.gone_rows), default=0)

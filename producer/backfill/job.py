"""The values of a job: its specification, the progress of its reading, and its phase.

The reading of a job is divided into stripes, one for each process that reads: block n belongs to
stripe n mod stripes, and a stripe publishes its blocks in their order. So the position that each
partition keeps for a stripe (see `accept.lua`) says exactly what was published, and a reader that
was killed loses nothing and repeats nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Final, Literal

import orjson

from producer.events.rows import RowMeaning
from producer.publishing.published import PublishOptions
from producer.sources.csv_rows import Columns

JobPhase = Literal["reading", "canary", "paused", "read", "failed", "aborted"]
"""The phase of a job. `canary`: the first rows are published, and the job waits until a person
resumes it. `failed`: the source can't be read to its end. See `book` for the ways from one to
another."""

BAD_ROW_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Spec:
    """The settings of a job, fixed when it starts.

    Args:
        sources: Files as they were named, `-`, or `lytics:SLUG`.
        digests: Of the files' contents, in the same order; "" where a source can't be read twice.
        size: Bytes of all files; 0 = not known.
        expected_rows: How many rows the source says it has; 0 = not known.
        triggers: The only ones that get deliveries; none = all that want the events.
        skip_hook: The destination starts no journeys; a trigger may overrule it.
        again: Deliver also what the ledger knows as delivered, or as already there.
        canary: How many rows are published before a person says that it goes on; 0 = none.
        stripes: Processes that read.
        routing: Digest of what decides which deliveries come of a row, see `routing_digest`.
        started_at: RFC 3339.
        block_times: How many times larger than usual its blocks are, see `blocks.block_times`.
        attempt: How often the source was read from its beginning before, because it can't be
            taken up where a reading stopped.
        older_than_ledger: Accept also events that are older than what the ledger remembers.
    """

    name: str
    sources: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    membership: RowMeaning | None
    columns: Columns
    triggers: tuple[str, ...]
    skip_hook: bool
    again: bool
    canary: int
    stripes: int
    routing: str
    started_at: str
    expected_rows: int = 0
    attempt: int = 0
    block_times: int = 1
    older_than_ledger: bool = False

    @property
    def options(self) -> PublishOptions:
        """Return the options of `publish` for the job's rows."""
        return PublishOptions(
            job=self.name,
            skip_hook=self.skip_hook,
            triggers=self.triggers,
            again=self.again,
            older_than_ledger=self.older_than_ledger,
        )

    @property
    def resumes(self) -> bool:
        """Say whether an interrupted reading goes on where it stopped, or starts again."""
        return all(self.digests)

    def source_of(self, stripe: int) -> str:
        """Return the name of the sequence of blocks in which a stripe's positions count."""
        begin = f"{self.digests[0][:8]}{self.routing}.{len(self.sources)}"
        return f"{begin}.{stripe}.{self.stripes}.{self.attempt}"

    def dumps(self) -> bytes:
        """Return the JSON text that Redis keeps."""
        return orjson.dumps(asdict(self))

    @classmethod
    def loads(cls, text: bytes) -> Spec:
        """Read the specification that `dumps` wrote."""
        found = orjson.loads(text)
        membership, columns = found["membership"], found["columns"]
        lists = {name: tuple(found[name]) for name in ("sources", "digests", "triggers")}
        return cls(
            **found
            | lists
            | {
                "membership": RowMeaning(**membership) if membership else None,
                "columns": Columns(
                    **columns | {n: tuple(columns[n]) for n in ("names", "lists", "maps")}
                ),
            }
        )


@dataclass(frozen=True, slots=True)
class JobTally:
    """The numbers of rows read and published, up to one block.

    Args:
        position: Number of the last block that is published; 0 = none.
        rows: Rows of the source.
        events: Of them, wanted or not.
        accepted: Deliveries.
        unmatched: Events that no trigger wants.
        refused: Rows and events that could not be placed.
    """

    position: int = 0
    rows: int = 0
    events: int = 0
    accepted: int = 0
    unmatched: int = 0
    refused: int = 0

    def __add__(self, other: JobTally) -> JobTally:
        return JobTally(
            max(self.position, other.position),
            self.rows + other.rows,
            self.events + other.events,
            self.accepted + other.accepted,
            self.unmatched + other.unmatched,
            self.refused + other.refused,
        )


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be placed.

    Args:
        file: As it was named.
        line: From 1.
        text: The row, as it can be sent again once it is mended; "" where it is too large.
    """

    file: str
    line: int
    reason: str
    message: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as Redis knows it.

    Args:
        claimed: Somebody reads it now.
        tallies: Of each stripe.
        problem: Why it failed; "" = it did not.
    """

    spec: Spec
    phase: JobPhase
    claimed: bool
    tallies: tuple[JobTally, ...] = field(default=())
    problem: str = ""

    @property
    def tally(self) -> JobTally:
        """Return the sum of the tallies of all stripes."""
        return sum(self.tallies, JobTally())

"""Jobs: what was asked for, how far the reading is, and who reads; kept in Redis.

The reading of a job is divided into stripes, one for each process that reads: block n belongs to
stripe n mod stripes, and a stripe publishes its blocks in their order. So the position that each
partition keeps for a stripe (see `accept.lua`) says exactly what was published, and a reader that
was killed loses nothing and repeats nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, cast

import orjson
from redis import Redis

from producer.events.rows import RowMeaning
from producer.sources.csv_rows import Columns
from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.errors import UsageWrong

JobPhase = Literal["reading", "canary", "paused", "read", "aborted"]
"""`canary`: the first rows are published, and the job waits for a person's word."""

CLAIM_MS: Final = 15_000
"""How long a reader that went silent keeps its job."""
BAD_ROWS_KEPT: Final = 10_000
BAD_ROW_BYTES: Final = 65_536
_SPEC: Final = "spec"
_PHASE: Final = "phase"
_CLAIM: Final = "claim"
_CLAIM_SCRIPT: Final = """\
#!lua
-- Takes or renews the claim of a job. KEYS[1] job   ARGV[1] token   ARGV[2] milliseconds
-- Returns 0, or for how many milliseconds somebody else still holds it.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local token, ends = string.match(redis.call('HGET', KEYS[1], 'claim') or '', '^(%w+) (%d+)$')
local left = token and tonumber(ends) - now_ms or 0
if token and token ~= ARGV[1] and left > 0 and left <= tonumber(ARGV[2]) then return left end
redis.call('HSET', KEYS[1], 'claim', ARGV[1] .. ' ' .. string.format('%d', now_ms + ARGV[2]))
return 0
"""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a job does, fixed when it starts.

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
        attempt: How often the source was read from its beginning before, because it can't be
            taken up where a reading stopped.
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

    @property
    def resumes(self) -> bool:
        """Say whether a reading that stopped goes on where it stopped, or starts again."""
        return all(self.digests)

    def source_of(self, stripe: int) -> str:
        """Return in what the positions of a stripe count."""
        begin = f"{self.digests[0][:8]}{self.routing}.{len(self.sources)}"
        return f"{begin}.{stripe}.{self.stripes}.{self.attempt}"

    def dumps(self) -> bytes:
        """Return the JSON text that Redis keeps."""
        return orjson.dumps(asdict(self))

    @classmethod
    def loads(cls, text: bytes) -> Spec:
        """Read what `dumps` wrote."""
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
    """What was read and published, counted up to a block.

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
    """

    spec: Spec
    phase: JobPhase
    claimed: bool
    tallies: tuple[JobTally, ...] = field(default=())

    @property
    def tally(self) -> JobTally:
        """Return the sum of all stripes."""
        return sum(self.tallies, JobTally())


class JobBook:
    """All jobs, in Redis."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def names(self) -> list[str]:
        """Return the names of all jobs."""
        with redis_errors():
            found = cast("set[bytes]", self._client.smembers(keys.JOBS))
        return sorted(name.decode() for name in found)

    def find(self, name: str) -> Job | None:
        """Return a job, or None where there is none of that name."""
        with redis_errors():
            record = cast("dict[bytes, bytes]", self._client.hgetall(keys.job(name)))
        if _SPEC.encode() not in record:
            return None
        spec = Spec.loads(record[_SPEC.encode()])
        phase = cast("JobPhase", record.get(_PHASE.encode(), b"reading").decode())
        ends_ms = int((record.get(_CLAIM.encode()) or b"- 0").split()[1])
        tallies = tuple(
            _tally(record.get(f"stripe|{number}".encode())) for number in range(spec.stripes)
        )
        return Job(spec, phase, self.now_ms() < ends_ms, tallies)

    def named(self, name: str) -> Job:
        """Return a job.

        Raises:
            UsageWrong: There is none of that name.
        """
        found = self.find(name)
        if found is None:
            known = ", ".join(self.names()) or "none"
            raise UsageWrong(f"There is no job '{name}'; known are: {known}.")
        return found

    def create(self, spec: Spec) -> None:
        """Write a new job down.

        Raises:
            UsageWrong: There is one of that name.
        """
        with redis_errors():
            if not self._client.hsetnx(keys.job(spec.name), _SPEC, spec.dumps()):
                raise UsageWrong(
                    f"There is a job '{spec.name}' already: `segrelay backfill status {spec.name}` "
                    "tells how it stands. Choose another --name, or resume that one."
                )
            self._client.hset(keys.job(spec.name), _PHASE, "reading")
            self._client.sadd(keys.JOBS, spec.name)

    def read_anew(self, spec: Spec) -> None:
        """Let a job begin again from the begin of its source; see `Spec.attempt`."""
        name = spec.name
        with redis_errors():
            known = cast("list[bytes]", self._client.hkeys(keys.job(name)))
            stripes = [field for field in known if field.startswith(b"stripe|")]
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(keys.job(name), mapping={_SPEC: spec.dumps(), _PHASE: "reading"})
            if stripes:
                pipe.hdel(keys.job(name), *stripes)
            pipe.unlink(keys.job_bad_rows(name))
            pipe.execute()

    def set_phase(self, name: str, phase: JobPhase) -> None:
        """Say what should become of a job; its reader looks every second."""
        with redis_errors():
            self._client.hset(keys.job(name), _PHASE, phase)

    def phase(self, name: str) -> JobPhase:
        """Return what should become of a job."""
        with redis_errors():
            found = cast("bytes | None", self._client.hget(keys.job(name), _PHASE))
        return cast("JobPhase", (found or b"aborted").decode())

    def forget(self, name: str) -> None:
        """Remove a job; its counts in the partitions stay."""
        with redis_errors():
            self._client.unlink(keys.job(name), keys.job_bad_rows(name))
            self._client.srem(keys.JOBS, name)

    def claim(self, name: str, token: str) -> float:
        """Take or renew the claim; returns 0, or seconds for which somebody else still has it."""
        with redis_errors():
            left = self._client.eval(_CLAIM_SCRIPT, 1, keys.job(name), token, str(CLAIM_MS))
        return float(cast("int", left)) / 1000

    def release(self, name: str) -> None:
        """Give the claim back."""
        with redis_errors():
            self._client.hdel(keys.job(name), _CLAIM)

    def note(self, spec: Spec, stripe: int, tally: JobTally, bad_rows: Sequence[BadRow]) -> None:
        """Write down how far a stripe is, with the bad rows of its last block; in one step."""
        bad = [orjson.dumps(asdict(row)) for row in bad_rows]
        with redis_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.execute_command(*noting(spec, stripe, tally))  # type: ignore[no-untyped-call]
            if bad:
                pipe.rpush(keys.job_bad_rows(spec.name), *bad)
                pipe.ltrim(keys.job_bad_rows(spec.name), 0, BAD_ROWS_KEPT - 1)
            pipe.execute()

    def bad_rows(self, name: str) -> Iterator[BadRow]:
        """Yield the bad rows that are kept, in the order in which they were met."""
        with redis_errors():
            kept = cast("list[bytes]", self._client.lrange(keys.job_bad_rows(name), 0, -1))
        for text in kept:
            yield BadRow(**orjson.loads(text))

    def now_ms(self) -> int:
        """Return Redis' clock."""
        with redis_errors():
            seconds, micros = self._client.time()
        return seconds * 1_000 + micros // 1_000


def noting(spec: Spec, stripe: int, tally: JobTally) -> tuple[str | bytes, ...]:
    """Return the command that writes down how far a stripe is."""
    return ("HSET", keys.job(spec.name), f"stripe|{stripe}", orjson.dumps(asdict(tally)))


def new_token() -> str:
    """Return a token with which a reader claims a job."""
    return secrets.token_hex(8)


def _tally(text: bytes | None) -> JobTally:
    return JobTally(**orjson.loads(text)) if text else JobTally()

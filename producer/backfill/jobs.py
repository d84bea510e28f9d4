"""The jobs in Redis: specification, phase, reader, and progress of the reading.

A job has one reader at a time, which has claimed it. Each claim, and each decision of an operator,
begins a new *epoch* of the job. What a reader publishes carries its epoch, and each partition knows
the earliest that it still accepts: a reader that was paused, aborted or replaced is refused there
by the script that would write its rows, however long it stood still before. The number is kept in
each partition because a script of a partition can't look into the job's own record.

The reading is divided into shards, one for each process that reads: block n belongs to
shard n mod shards, and a shard publishes its blocks in their order. So the position that each
partition keeps for a shard (see `accept.lua`) says exactly what was published, and a reader that
was killed loses nothing and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from operator import add
from pathlib import Path
from typing import Any, Final, Literal, cast

import orjson

from segrelay.producer.events.payloads import RowForm
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.sources.tables import Columns
from segrelay.producer.steps import StepState, StepStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, stream_name, without_lane
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.records import read_record, read_records
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.lock import Lock
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    Value,
    load_script,
    run_each,
    run_script,
    script_call,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import lane_of_job
from segrelay.worker.errors import JobHeld, UsageWrong

JobPhase = Literal["reading", "canary", "paused", "read", "failed", "aborted"]
"""The phase of a job. `canary`: the first rows are published, and the job waits until a person
resumes it. `failed`: the source can't be read to its end. `MAY_COME_FROM` has the ways from one to
another."""


@dataclass(frozen=True, slots=True)
class Spec:
    """The settings of a job, fixed when it starts.

    Args:
        sources: The files as they were named, `-`, or `lytics:SLUG`.
        digests: The versions of the files, in the same order; "" where a source can't be read
            twice.
        size: The bytes of all files; 0 = not known.
        expected_rows: The number of rows that the source says it has; 0 = not known.
        options: The way in which its rows are published.
        canary: The number of rows to publish before a person says that it goes on; 0 = none.
        shards: The number of processes that publish, each a shard of the blocks.
        routing: The digest of what decides which deliveries come of a row, see `routing_digest`.
        started_at: The time of its start, RFC 3339.
        attempt: A number that tells this reading of the source from all others of jobs of this
            name: the time at which the job was made (ms), and one more each time that the source is
            read from its beginning, because it can't be taken up where a reading stopped.
        watch: The watch that began the job and goes on with it by itself; "" = a person did.
    """

    name: str
    sources: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    membership: RowForm | None
    columns: Columns
    options: PublishOptions
    canary: int
    shards: int
    routing: str
    started_at: str
    expected_rows: int = 0
    attempt: int = 0
    watch: str = ""

    @property
    def resumes(self) -> bool:
        """Say whether an interrupted reading goes on where it stopped, or starts again."""
        return all(self.digests)

    def source_of(self, shard: int) -> str:
        """Return the name of the sequence of blocks in which a shard's positions count."""
        begin = f"{self.digests[0][:8]}{self.routing}.{len(self.sources)}"
        return f"{begin}.{shard}.{self.shards}.{self.attempt}"

    def dumps(self) -> bytes:
        """Return the JSON text that Redis keeps."""
        return orjson.dumps(asdict(self), default=tuple)

    def document(self) -> dict[str, Any]:
        """Return whose rows these are, and as of when, as commands print it in JSON."""
        rows = self.membership
        return {
            "sources": list(self.sources),
            "audience": rows.audience if rows else None,
            "on": rows.direction if rows else None,
            "as_of": rows.as_of if rows else None,
            "skip_hook": self.options.skip_hook,
        }


@dataclass(frozen=True, slots=True)
class JobTally:
    """The numbers of rows read and published, up to one block.

    Args:
        position: The number of the last block that is published; 0 = none.
        rows: The number of rows of the source.
        events: The number of events in these rows, wanted or not.
        accepted: The number of deliveries that were accepted.
        unmatched: The number of events that no trigger wants.
        refused: The number of rows and events that could not be placed.
    """

    position: int = 0
    rows: int = 0
    events: int = 0
    accepted: int = 0
    unmatched: int = 0
    refused: int = 0

    def __add__(self, other: JobTally) -> JobTally:
        (position, *counts), (its, *others) = astuple(self), astuple(other)
        return JobTally(max(position, its), *map(add, counts, others))


@dataclass(frozen=True, slots=True)
class Job:
    """A job as Redis knows it.

    Args:
        claimed: True if somebody reads it now.
        tallies: The tally of each shard.
        problem: The reason why it failed, or why its reader gave up; "" = neither.
        since_ms: The time at which it came to its phase, or at which its reader was last known to
            read; 0 = not known.
        spec_text: The specification's text as Redis has it.
    """

    spec: Spec
    phase: JobPhase
    claimed: bool
    tallies: tuple[JobTally, ...] = field(default=())
    problem: str = ""
    since_ms: int = 0
    spec_text: bytes = b""

    @property
    def tally(self) -> JobTally:
        """Return the sum of the tallies of all shards."""
        return sum(self.tallies, JobTally())


CLAIM_MS: Final = 15_000
"""The ms after which a reader that does not renew its claim loses its job."""
_NAMELESS_MS: Final = 86_400_000
"""The ms for which a job that was forgotten gets no successor of its name."""
_TAKEN_MS: Final = 90 * _NAMELESS_MS
"""The ms for which a watch remembers a version of a file that it took, since it last saw it."""
MAY_COME_FROM: Final[Mapping[JobPhase, tuple[JobPhase, ...]]] = {
    "reading": ("reading", "canary", "paused", "failed"),
    "canary": ("reading",),
    "paused": ("reading", "paused"),
    "read": ("reading",),
    "failed": ("reading",),
    "aborted": ("reading", "canary", "paused", "read", "failed", "aborted"),
}
"""For each phase, the phases from which a job comes to it. Nothing comes after `aborted`."""
_OF_A_READER: Final = ("reading",)
"""The phases from which a reader brings a job to another one."""
_SPEC: Final = "spec"
_PHASE: Final = "phase"


_ENDED: Final = frozenset({"read", "aborted"})
"""The phases from which a job is never read again."""


class JobStore:
    """The backfill jobs in Redis."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def names(self) -> list[str]:
        found = cast("set[bytes]", self._client.smembers(keys.JOBS))
        return sorted(name.decode() for name in found)

    def find(self, name: str) -> Job | None:
        """Return a job, or None where there is none of that name."""
        return self.found([name]).get(name)

    def found(self, names: Sequence[str], unreadable: list[str] | None = None) -> dict[str, Job]:
        """Return the jobs that exist among these names; see `read_record`."""
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(keys.job(name))
        records = cast("list[dict[bytes, bytes]]", pipe.execute())
        at_ms = self.now_ms()
        jobs = {
            name: _job(record, at_ms, f"job {name}", unreadable)
            for name, record in zip(names, records, strict=True)
            if _SPEC.encode() in record
        }
        return {name: job for name, job in jobs.items() if job}

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

    def free_name(self, wanted: Iterable[str]) -> str:
        """Return the first of these names that a new job can get now."""
        taken = set(self.names())
        return next(
            name
            for name in wanted
            if name not in taken and not self._client.exists(keys.job_forgotten(name))
        )

    def known(self, names: Sequence[str]) -> set[str]:
        """Return the names of a watch's jobs, of these names, that exist or existed until lately.

        Each look extends the time for which a name is remembered.
        """
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.exists(keys.job(name))
            pipe.pexpire(keys.job_forgotten(name), _TAKEN_MS)
        answers = iter(pipe.execute())
        return {name for name in names if next(answers) + next(answers)}

    def name_as_forgotten(self, names: Sequence[str]) -> None:
        """Refuse these names to new jobs of a watch, as if they had been forgotten."""
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.set(keys.job_forgotten(name), "1", px=_TAKEN_MS)
        pipe.execute()

    def create(self, spec: Spec) -> None:
        """Add a new job to Redis.

        Its name is known first: a name without a job is passed over, and a job without a name
        would be found by nobody.

        Raises:
            UsageWrong: There is one of that name, or was until lately.
        """
        self._client.sadd(keys.JOBS, spec.name)
        names = (keys.job(spec.name), keys.job_forgotten(spec.name))
        created = self._run("create", names, (spec.dumps(),))
        if created < 0:
            self._client.srem(keys.JOBS, spec.name)
            raise UsageWrong(
                f"The record of a former job '{spec.name}' was dropped within the last day, and its"
                " name is not free before that is over: choose another --job."
            )
        if not created:
            raise UsageWrong(
                f"There is a job '{spec.name}' already: `segrelay backfill status {spec.name}` "
                "tells how it stands. Choose another --job, or resume that one."
            )

    def phase(self, name: str) -> JobPhase:
        """Return the phase of a job; `aborted` where there is none."""
        found = cast("bytes | None", self._client.hget(keys.job(name), _PHASE))
        return cast("JobPhase", (found or b"aborted").decode())

    def resume(self, name: str, spec: Spec | None = None) -> JobPhase:
        """Mark a job as being read again if its phase allows it; return its former phase.

        Args:
            name: The job's name.
            spec: The new specification, if its source is to be read from the beginning; see
                `Spec.attempt`.

        Raises:
            JobHeld: It can't begin again while somebody reads it.
        """
        was, _, left_ms = self._move(name, "reading", spec=spec)
        if left_ms:
            raise JobHeld(
                f"Job '{name}' is being read by another process; if that was killed, its claim "
                f"ends within {CLAIM_MS // 1_000} s."
            )
        return was

    def stop(self, name: str, phase: JobPhase, partitions: Sequence[PartitionKeys]) -> JobPhase:
        """Pause or abort a job: when this returns, nothing more of its reading is accepted.

        Args:
            name: The job's name.
            phase: The phase to bring it to, `paused` or `aborted`.
            partitions: All partitions of all destinations.

        Returns:
            The phase in which it was. Where that does not allow this one, nothing has changed.

        Raises:
            RedisUnavailable: Some partitions may still accept its rows; stopping it again is safe.
        """
        was, epoch, _ = self._move(name, phase)
        if epoch:
            self.close(name, epoch, partitions)
        return was

    def conclude(self, name: str, epoch: int, phase: JobPhase, problem: str = "") -> JobPhase:
        """Record how a reading has ended, if the reader still has the job; return its phase."""
        was, moved, _ = self._move(name, phase, epoch=str(epoch), problem=problem)
        return phase if moved else was

    def _move(
        self,
        name: str,
        phase: JobPhase,
        *,
        epoch: str = "",
        problem: str = "",
        spec: Spec | None = None,
    ) -> tuple[JobPhase, int, int]:
        allowed = _OF_A_READER if epoch else MAY_COME_FROM[phase]
        told = (phase, epoch, problem, spec.dumps() if spec else "", *allowed)
        was, new, left_ms = self._run("move", (keys.job(name),), told)
        return cast("JobPhase", was.decode()), new, left_ms

    def close(self, name: str, epoch: int, partitions: Sequence[PartitionKeys]) -> None:
        """Close partitions to the readers of earlier epochs."""
        calls = [ScriptCall((each.jobs,), (1, name, epoch)) for each in partitions]
        run_each(self._client, _script("epochs"), calls, synced_once=True)

    def ended(self, before_ms: int) -> list[Job]:
        """Return the jobs that are over since before a time, by Redis' clock.

        Names without a job, which a process has left that was killed, are removed.
        """
        names = self.names()
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hmget(keys.job(name), _PHASE, "moved")
        over = []
        for name, (phase, moved) in zip(names, pipe.execute(), strict=True):
            if phase is None:
                self._remove(name, b"")
            elif phase.decode() in _ENDED and int(moved or 0) < before_ms:
                over.append(name)
        return list(self.found(over).values())

    def forget(
        self,
        job: Job,
        partitions: Sequence[PartitionKeys],
        *,
        before_ms: int | None = None,
        until_ms: int | None = None,
        note: Callable[[], object] = lambda: None,
    ) -> bool:
        """Forget a job that is over; return whether nothing of it is left.

        A job of which deliveries wait or are dead stays. Its partitions stay closed to its readers
        until `reopen`, so that what a late one writes is refused.

        Args:
            job: The job, as it was read.
            partitions: All partitions of all destinations.
            before_ms: The time before which it must have been read or aborted; None = whenever that
                was.
            until_ms: The time after which nothing of it is forgotten; None = it is never too late.
            note: A function that is called before the last of it goes, perhaps more than once.

        Raises:
            RedisUnavailable: A part of it may be gone; forgetting it again is safe.
        """
        name = job.spec.name
        before, until = ("" if limit is None else limit for limit in (before_ms, until_ms))
        if not self._forget(name, partitions, "", until):  # all of it stays where a part would
            return False
        if job.phase == "failed":
            self.stop(name, "aborted", partitions)  # nobody can resume it from now on
        epoch = self._run("end", (keys.job(name),), (job.spec_text, before, until))
        if not (epoch and self._forget(name, partitions, epoch, until)):
            return False
        note()
        self._remove(name, job.spec_text, _TAKEN_MS if job.spec.watch else _NAMELESS_MS)
        return True

    def _remove(self, name: str, spec_text: bytes, nameless_ms: int = _NAMELESS_MS) -> None:
        names = (keys.job(name), keys.job_forgotten(name))
        if self._run("remove", names, (spec_text, nameless_ms)):
            self._client.srem(keys.JOBS, name)

    def _forget(
        self,
        name: str,
        partitions: Sequence[PartitionKeys],
        epoch: int | str,
        until_ms: int | str,
    ) -> bool:
        """Forget a job in all partitions; with the epoch "", only say whether that may be done."""
        values = {"job": name, "epoch": epoch, "until_ms": until_ms}
        forget = _script("forget")
        streams = self._streams(name, partitions) if epoch else [[] for _ in partitions]
        calls = [
            script_call(forget, each, stream=found, **values)
            for each, found in zip(partitions, streams, strict=True)
        ]
        return all(run_each(self._client, forget, calls))

    def _streams(self, name: str, partitions: Sequence[PartitionKeys]) -> Iterator[list[str]]:
        """Yield the names of a job's streams, one list for each partition."""
        pipe = self._client.pipeline(transaction=False)
        for each in partitions:
            pipe.hkeys(each.counts)
        for each, fields in zip(partitions, pipe.execute(), strict=True):
            counted = (without_lane(one.decode())[1].split("|") for one in fields)
            triggers = {trigger for kind, trigger, *_ in counted if kind == "accepted"}
            lane = lane_of_job(name)
            yield [each.stream(stream_name(lane, trigger)) for trigger in sorted(triggers)]

    def reopen(self, partition: PartitionKeys, before_ms: int) -> None:
        """Forget that a partition is closed to readers of jobs that were forgotten before a time.

        Args:
            partition: The partition.
            before_ms: The time by Redis' clock, with which epochs begin.
        """
        closed: Any = self._client.hgetall(partition.jobs)
        known = set(self.names())
        old: list[str | bytes] = []
        for field_name, epoch in closed.items():
            name, _, what = field_name.decode().rpartition("|")
            if what == "epoch" and name not in known and int(epoch) < before_ms:
                old += [name, epoch]
        if old:
            self._run("epochs", (partition.jobs,), (0, *old))

    def partitions(self, settings: Settings) -> list[PartitionKeys]:
        """Return the partitions into which a configuration publishes at present."""
        claim(self._client, settings)  # a destination that is new gets its id
        redis = settings.redis
        numbers = range(redis.partitions)
        return [PartitionKeys(name, at) for name in settings.destinations for at in numbers]

    def take(self, name: str) -> tuple[JobPhase, int, float]:
        """Claim a job, to read it; nothing changes if it may not be read.

        Returns:
            The job's phase; the epoch with which the new reader writes, 0 = it may not read; and
            the seconds for which somebody else still reads it, unless that renews its claim.
        """
        taken = self._claim(name).take(only="reading")
        phase = cast("JobPhase", (taken.field or b"aborted").decode())
        return phase, taken.epoch, taken.left_seconds

    def renew(self, name: str, epoch: int) -> JobPhase:
        """Renew the claim; return the present phase of the job.

        Raises:
            JobHeld: Another process reads it.
        """
        phase = self._claim(name).save(epoch)
        if phase is None:
            raise JobHeld(f"Job '{name}' was taken over by another reader.")
        return cast("JobPhase", phase.decode())

    def release(self, name: str, epoch: int) -> None:
        """Give the claim on a job back."""
        self._claim(name).save(epoch, ends=True)

    def _claim(self, name: str) -> Lock:
        return Lock(self._client, keys.job(name), CLAIM_MS, _PHASE)

    def note(self, spec: Spec, epoch: int, shard: int, tally: JobTally) -> None:
        """Record how far a shard has come."""
        self._client.execute_command(*noting(spec, epoch, shard, tally))

    def now_ms(self) -> int:
        return now_ms(self._client)

    def _run(self, script: str, names: Sequence[str], told: Sequence[Value]) -> Any:
        return run_script(self._client, _script(script), names, told)


def _script(name: str) -> str:
    return load_script(f"job_{name}", Path(__file__).parent)


def noting(spec: Spec, epoch: int, shard: int, tally: JobTally) -> tuple[Value, ...]:
    """Return the command that records how far a shard has come."""
    told = (epoch, shard, orjson.dumps(asdict(tally)))
    return ("EVAL", _script("note"), 1, keys.job(spec.name), *told)


def _job(
    record: Mapping[bytes, bytes], now_ms: int, name: str, unreadable: list[str] | None
) -> Job | None:
    spec = read_record(Spec, record[_SPEC.encode()], name, unreadable)
    if spec is None:
        return None
    texts = (record.get(f"shard|{n}".encode(), b"{}") for n in range(spec.shards))
    tallies = read_records(JobTally, texts, name, unreadable)
    if len(tallies) < spec.shards:
        return None
    phase = cast("JobPhase", record.get(_PHASE.encode(), b"reading").decode())
    until_ms, moved_ms = int(record.get(b"until", 0)), int(record.get(b"moved", 0))
    return Job(
        spec,
        phase,
        now_ms < until_ms,
        tuple(tallies),
        record.get(b"problem", b"").decode(),
        until_ms - CLAIM_MS if phase == "reading" and until_ms else moved_ms,
        record[_SPEC.encode()],
    )


@dataclass(slots=True)
class WatchState(StepState):
    """The state of a watch.

    Args:
        source: The place at which it looked first.
        existing: The number of files that were there then, and were left alone.
        job: The name of the job that is read; "" = none is.
        start_at_ms: The time before which no other reader of the job is started.
        waiting: The number of new files at the last look that are not taken yet.
        refused: Why no job could be made of a file, by the file's name.
        looked_ms: The time of the last look.
        next_ms: The time at which the next step is due.
        failures: The number of steps in a row that came to nothing.
        failing_since_ms: The time of the first of them.
        problem: The problem that stopped the last of them.
    """

    begins_anew = False  # that would leave new files alone for good
    source: str = ""
    existing: int = 0
    job: str = ""
    start_at_ms: int = 0
    waiting: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    looked_ms: int = 0
    next_ms: int = 0
    failures: int = 0
    failing_since_ms: int = 0
    problem: str = ""

    def line(self) -> str:
        """Return how the watch stands, in a few words."""
        if not self.looked_ms:
            return self.problem or "has not looked yet"
        parts = [f"{plural(self.waiting, 'file')} to be taken"]
        parts += [f"{self.existing:,} left alone at the first look"] if self.existing else []
        parts += [f"job {self.job} is under way"] if self.job else []
        return ", ".join(parts)


def steps_of(client: Redis, watch: str) -> StepStore[WatchState]:
    """Return the state and the lock of a watch."""
    return StepStore(client, keys.watch(watch), f"watch '{watch}'", WatchState)


def read_watch(client: Redis, watch: str) -> WatchState:
    """Return the state of a watch as it is now.

    Raises:
        FormatUnknown: It can't be read.
    """
    return steps_of(client, watch).peek()

"""The standing: what goes, and what stops a destination, trigger or job, since when and why.

It is one typed record, read in one place from one look at Redis. The status, its screen, health,
metrics, `why`, `resume` and `--wait` only show it. May a delivery go? The drain decides that by
pauses, the gate, the waits of triggers and the templates that a worker can't use; the standing
reads the same facts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from segrelay.ops.state.background import (
    LETTERS,
    RECORDS,
    RetentionStanding,
    VerifyState,
    read_expiring,
    read_verified,
)
from segrelay.ops.state.partitions import (
    Counts,
    LaneWait,
    PartitionSnapshot,
    Requests,
    Stream,
    Totals,
    add_up,
    all_partitions,
    ask_each,
    counts_of,
    destinations_of,
    snapshots,
)
from segrelay.ops.state.waiting import (
    Delays,
    read_delays,
    reason_of_state,
    state_of,
    times,
)
from segrelay.producer.backfill.jobs import Job, JobStore, WatchState, read_watch
from segrelay.producer.publishing.published import CapacityMeter
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.producer.sync.store import Run, SyncStore
from segrelay.worker.adapters.redis.gate import read_looks, read_state
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.processes import (
    SEEN_WITHIN_MS,
    WORKER,
    Process,
    Receivers,
    RunningReceiver,
    Sample,
    read_processes,
    read_receivers,
    read_samples,
    read_seen,
)
from segrelay.worker.contract.records import read_record
from segrelay.worker.contract.redis.claim import Loss, read_losses, read_refused
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import (
    ServerState,
    ask_how_it_is,
    now_us,
    weaknesses,
    why_not_yet,
    why_unfit,
)
from segrelay.worker.contract.redis.url import found_by
from segrelay.worker.contract.settings import Destination, Settings, load_settings
from segrelay.worker.contract.triggers import (
    DESTINATION,
    JOB,
    TRIGGER,
    Pause,
    Pauses,
    read_pauses,
)
from segrelay.worker.core.backoff import TRIES_ALONE
from segrelay.worker.core.gate import Closed, gate_id
from segrelay.worker.errors import FormatUnknown, RedisUnavailable, SegrelayError

_S = TypeVar("_S")
Kind = Literal["destination", "trigger", "job"]
FAILING: Final = "failing"
"""The field of the table of open problems with the last failure to send a message."""
_UNNAMED: Final = "the configuration does not name it any more"
_STOPPING: Final[Mapping[Kind, frozenset[str]]] = {
    DESTINATION: frozenset({"paused", "broken", "orphaned"}),
    TRIGGER: frozenset({"paused", "stopped", "refused", "waits", "orphaned"}),
    JOB: frozenset({"paused", "failed", "interrupted", "at its canary", "aborted"}),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a destination, trigger or job, with the reason, the time and the cause.

    Args:
        state: A word or two, the same in every output.
        reason: The reason as a word for machines, or in words.
        message: The reason in words where `reason` is a word; else "".
        since_ms: The time of its begin, by Redis' clock; None = not known.
        by: The person who did it; "" = nobody, `segrelay` = it stopped by itself.
        is_lasting: True after so many tries that somebody has to look.
    """

    kind: Kind
    state: str = "ok"
    reason: str = ""
    message: str = ""
    since_ms: int | None = None
    by: str = ""
    is_lasting: bool = False

    @classmethod
    def of_pause(cls, kind: Kind, pause: Pause, unless_told: str = "") -> Condition:
        """Return the state of something that a person paused, or that paused itself."""
        return cls(
            kind,
            "paused",
            pause.reason or unless_told,
            since_ms=_moment_ms(pause.at),
            by=pause.by,
        )

    @property
    def stops(self) -> bool:
        """Say whether this state stops all deliveries."""
        return self.state in _STOPPING[self.kind]

    @property
    def has_ended(self) -> bool:
        """Say whether it is a job that is never read again."""
        return self.state in {"done", "aborted"}

    @property
    def why(self) -> str:
        """Return the reason in words, and who caused it."""
        reason = self.message or self.reason
        return f"{reason} (by {self.by})" if self.by and self.by != "segrelay" else reason


def _moment_ms(text: str) -> int | None:
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1_000) if text else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class DestinationStanding:
    """A destination: its state, its gate, and the answers to its requests.

    Args:
        rate: The number of requests a minute that may be sent now; 0 = the configuration does not
            name the destination.
        factor: The share of the rate that slow-downs have left, 0 to 1.
        failing: The triggers for which alone its circuit breaker is open; none = for all.
    """

    condition: Condition
    rate: float
    factor: float
    requests: Requests
    dead_letters: int
    failing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TriggerStanding:
    """A trigger: its state, its deliveries, and its template.

    Args:
        destination: The destination's name; "" = the configuration does not name the trigger.
        by_lane: The trigger's counts by kind of lane.
        waits: The deliveries that wait, by kind of lane.
        oldest_live_ms: The time of its oldest live delivery, by Redis' clock; None = none waits.
        versions: The versions of its template that workers' processes have reported.
        refused: The reason why a change of the template is not used; "" = there is none.
    """

    condition: Condition
    destination: str = ""
    counts: Counts = field(default_factory=Counts)
    by_lane: Mapping[str, Counts] = field(default_factory=dict)
    waits: Mapping[str, LaneWait] = field(default_factory=dict)
    oldest_live_ms: int | None = None
    versions: Sequence[str] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class JobStanding:
    """A backfill, or the lane of one that Redis does not know: its state, deliveries and rows.

    Args:
        at: The job's counts, by destination that it delivers to.
        refused: The number of rows and events that could not be placed.
        watch: The watch that goes on with it by itself; "" = none does.
    """

    condition: Condition
    counts: Counts = field(default_factory=Counts)
    rows: int = 0
    expected_rows: int = 0
    at: Mapping[str, Counts] = field(default_factory=dict)
    watch: str = ""
    refused: int = 0


class WaitingResponses(NamedTuple):
    """The outcomes that wait for response streams, and those that were dropped.

    Attributes:
        oldest_ms: The time of the oldest outcome, by Redis' clock; None = none waits.
    """

    waiting: int = 0
    lost: int = 0
    oldest_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DifferingFile:
    """A template file that is not the same at all workers.

    Args:
        workers_by_digest: The names of workers by the digest of their file; under "" those that
            lack it.
    """

    workers_by_digest: Mapping[str, Sequence[str]]
    since_ms: int


@dataclass(frozen=True, slots=True)
class RedisStanding:
    """The state of Redis.

    Args:
        full: The reason why it accepts no more events; "" = it does.
        used, most: The bytes of memory that are used and allowed; most = 0 without a limit.
        takes_writes: False while it refuses them because of its disk.
        clock_ahead_seconds: The lead of this machine's clock over that of Redis.
        uptime_seconds: The time since the youngest of its servers was started.
        keys: The keys in its database; nearly all are ledgers.
    """

    full: str = ""
    used: int = 0
    most: int = 0
    weak: Sequence[str] = ()
    failing: Sequence[str] = ()
    takes_writes: bool = True
    losses: Sequence[Loss] = ()
    clock_ahead_seconds: float = 0.0
    uptime_seconds: float = float("inf")
    keys: int = 0


class StartedProcess(NamedTuple):
    """A worker or receiver that runs, and what it was started with."""

    name: str
    begun_ms: int
    config: str


@dataclass(frozen=True, slots=True)
class AlertFailure:
    """The reason why the last message was not taken, and the failed tries in a row."""

    since_ms: int
    tries: int
    reason: str
    last_ms: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that the status shows and by which health is judged.

    Args:
        now_ms: The time by Redis' clock.
        counts: The counts over all triggers.
        delays: The delayed work, by partition.
        refused_destinations: The destinations that can't be registered, see `read_refused`.
        quarantined: The number of records in the quarantine.
        seen: The time (ms) at which a process of each kind was last seen; see `read_seen`.
        alerts_fail: The reason why messages about problems are not taken; None = they are.
        streams: The streams in which deliveries wait, one for each partition, lane and trigger.
        unreadable: The names of records that can't be read, in words; see `read_record`.
    """

    settings: Settings
    now_ms: int
    counts: Counts = field(default_factory=Counts)
    totals: Totals = field(default_factory=Totals)
    destinations: Mapping[str, DestinationStanding] = field(default_factory=dict)
    triggers: Mapping[str, TriggerStanding] = field(default_factory=dict)
    jobs: Mapping[str, JobStanding] = field(default_factory=dict)
    delays: Mapping[PartitionKeys, Delays] = field(default_factory=dict)
    processes: Sequence[Process] = ()
    refused_destinations: Mapping[str, str] = field(default_factory=dict)
    quarantined: int = 0
    responses: WaitingResponses = field(default_factory=WaitingResponses)
    retention: RetentionStanding = field(default_factory=RetentionStanding)
    template_files: Mapping[str, DifferingFile] = field(default_factory=dict)
    verified: Mapping[str, VerifyState] = field(default_factory=dict)
    redis: RedisStanding = field(default_factory=RedisStanding)
    syncs: Mapping[str, Run] = field(default_factory=dict)
    watches: Mapping[str, WatchState] = field(default_factory=dict)
    receivers: Receivers = field(default_factory=Receivers)
    samples: Sequence[Sample] = ()
    seen: Mapping[str, int] = field(default_factory=dict)
    alerts_fail: AlertFailure | None = None
    streams: Sequence[Stream] = ()
    unreadable: Sequence[str] = ()

    @property
    def workers(self) -> list[Process]:
        """Return the workers that were seen lately."""
        return [one for one in self.processes if one.kind == WORKER]

    @property
    def started(self) -> list[StartedProcess]:
        """Return the workers and receivers that run, the last that was started first."""
        named: list[tuple[str, Process | RunningReceiver]] = [
            *((f"{one.host}:{one.pid}", one) for one in self.workers),
            *((f"receiver {name}", one) for name, one in self.live_receivers.items()),
        ]
        found = (StartedProcess(name, one.begun_ms, one.config) for name, one in named)
        return sorted(found, key=lambda one: one.begun_ms, reverse=True)

    @property
    def live_receivers(self) -> dict[str, RunningReceiver]:
        """Return the receivers that were seen lately, by host and process."""
        running = self.receivers.running.items()
        return {n: one for n, one in running if self.now_ms - one.seen_ms <= SEEN_WITHIN_MS}

    @property
    def newest_config(self) -> str:
        """Return the configuration that was started last; without any process, the file's."""
        started = self.started
        return started[0].config if started else self.settings.fingerprint

    @property
    def is_newest(self) -> bool:
        """Say whether it was read with the configuration that was started last."""
        return self.newest_config == self.settings.fingerprint

    def is_current(self, process: Process) -> bool:
        """Say whether a process was started with the newest configuration."""
        return process.config == self.newest_config

    def template_of(self, trigger: str) -> str:
        """Return the file of a trigger's template, as `template check` takes it; "" = not known."""
        known = self.settings.triggers.get(trigger)
        return known.main_template if known else ""

    def is_closed(self, destination: str, trigger: str = "") -> bool:
        """Say whether nothing goes to a destination, or nothing of one trigger."""
        known = self.destinations.get(destination)
        if known is None or not known.condition.stops:
            return known is None
        return not known.failing or trigger in known.failing

    @property
    def idle(self) -> str:
        """Return the reason why nothing at all is delivered; "" = work goes on."""
        workers = self.workers
        if not self.redis.takes_writes:
            return "Redis can't write to its disk, so it refuses writes: `segrelay redis status`"
        if not workers:
            return "no worker has been seen for 10 s: `segrelay up`, or `segrelay worker`"
        # A command that waits has published by its own file.
        if not any(one.config == self.settings.fingerprint for one in workers):
            names = ", ".join(f"{one.host}:{one.pid}" for one in workers)
            return f"all workers were started with another configuration ({names}): restart them"
        return ""

    def stopping(self, triggers: Iterable[str], job: str = "") -> Iterator[tuple[str, Condition]]:
        """Yield what stops the deliveries of triggers or of a job, with its name."""
        named = [(name, self.triggers[name]) for name in triggers if name in self.triggers]
        closed = {one.destination for name, one in named if self.is_closed(one.destination, name)}
        concerned = (
            *((name, one.condition) for name, one in self.destinations.items() if name in closed),
            *((name, one.condition) for name, one in named),
            *((name, one.condition) for name, one in self.jobs.items() if name == job),
        )
        yield from ((name, one) for name, one in concerned if one.stops)

    def stops(self, triggers: Iterable[str], job: str = "") -> Iterator[str]:
        """Yield what stops the deliveries of triggers or of a job, in words."""
        for name, one in self.stopping(triggers, job):
            state = one.state if one.state == "waits" else f"is {one.state}"
            yield f"{one.kind} {name} {state}: {one.why or 'no reason was given'}"
        if self.idle:
            yield self.idle


def read_standing(
    client: Redis, settings: Settings, partitions: Sequence[PartitionKeys] = ()
) -> Standing:
    """Read the standing from Redis; `partitions` are all partitions, if they are known already."""
    unreadable: list[str] = []
    at_us = now_us(client)
    ahead_seconds, at_ms = time.time() - at_us / 1_000_000, at_us // 1_000
    partitions = partitions or all_partitions(client, settings)
    found = snapshots(client, partitions)
    totals = add_up(found, settings)
    pauses = read_pauses(client)
    running = Standing(
        settings,
        at_ms,
        processes=read_processes(client, unreadable),
        receivers=read_receivers(client, at_ms, unreadable),
        seen=read_seen(client),
        unreadable=unreadable,
    )
    stored: Any = client.hgetall(keys.FINGERPRINTS)
    editions = {name.decode(): edition.decode() for name, edition in stored.items()}
    delays = {
        partition: one.without_former(editions)
        for partition, one in zip(partitions, read_delays(client, partitions), strict=True)
    }
    destinations = dict(
        _destinations(client, settings, totals, pauses, destinations_of(partitions))
    )
    jobs = dict(_jobs(client, totals, pauses, unreadable))

    def run_of(name: str) -> Run:
        return SyncStore(client, name, settings.redis).peek()

    quarantine = Quarantine(client).totals()
    delayed = _waits_of_failing(destinations) | dict(_delayed(found, delays))
    return replace(
        running,
        counts=totals.of_all(),
        totals=totals,
        destinations=destinations,
        triggers=dict(_triggers(running, totals, pauses, delayed)),
        jobs=jobs,
        delays=delays,
        refused_destinations=read_refused(client, settings),
        quarantined=quarantine.records,
        responses=_responses(client, partitions),
        retention=RetentionStanding(
            read_expiring(client, settings, partitions, at_ms),
            {LETTERS: totals.expired, RECORDS: quarantine.expired},
        ),
        template_files=dict(_differing_files(running)),
        verified=read_verified(client, settings, unreadable),
        redis=_redis(client, settings, ahead_seconds),
        syncs=dict(_readable("sync", settings.sync, run_of, unreadable)),
        watches=dict(
            _readable("watch", settings.backfill.watch, partial(read_watch, client), unreadable)
        ),
        samples=read_samples(client, unreadable),
        alerts_fail=read_failure(client) if settings.operate.notify else None,
        streams=tuple(stream for one in found for stream in one.waiting),
    )


def read_failure(client: Redis) -> AlertFailure | None:
    """Return why messages were not taken lately; None = the last one was."""
    stored: Any = client.hget(keys.ALERTS, FAILING)
    return read_record(AlertFailure, stored) if stored else None


def _readable(
    kind: str, names: Iterable[str], read: Callable[[str], _S], unreadable: list[str]
) -> Iterator[tuple[str, _S]]:
    for name in names:
        try:
            yield name, read(name)
        except FormatUnknown:
            unreadable.append(f"{kind} {name}")


@dataclass(slots=True)
class WatchedFile:
    """The configuration of a process that only watches, which is read anew once it is in use.

    A file that was changed holds from when a worker or receiver was started with it.

    Args:
        settings: The settings that are in use.
        may_change: False if the process works by what it was started with.
    """

    settings: Settings
    may_change: bool = True

    def adopt(self, newest_config: str) -> bool:
        """Use the file as it is now, if it is the newest; return whether the settings changed."""
        if not self.may_change or newest_config == self.settings.fingerprint:
            return False
        with suppress(SegrelayError, OSError):
            found = load_settings(self.settings.source)
            if found.fingerprint == newest_config:
                self.settings = found
                return True
        return False


def read_newest(
    client: Redis, file: WatchedFile, partitions: Sequence[PartitionKeys] = ()
) -> Standing:
    """Read the standing by the newest configuration that is known here; see `read_standing`."""
    standing = read_standing(client, file.settings, partitions)
    if standing.started and file.adopt(standing.newest_config):
        return read_standing(client, file.settings)
    return standing


def read_counts(client: Redis, settings: Settings) -> Counts:
    """Read only the counts over all triggers."""
    found = snapshots(client, all_partitions(client, settings))
    return add_up(found, settings).of_all()


def _destinations(
    client: Redis, settings: Settings, totals: Totals, pauses: Pauses, names: Sequence[str]
) -> Iterator[tuple[str, DestinationStanding]]:
    for name in names:
        known, condition, rate, factor = settings.destinations.get(name), None, 0.0, 1.0
        failing: frozenset[str] = frozenset()
        if known:
            gate = read_state(
                client,
                gate_id(known.base_url, known.gate_scope),
                configured_per_minute=known.rate_per_minute,
            )
            rate, factor = round(gate.rate_per_minute, 2), gate.factor
            condition = Condition(
                DESTINATION, gate.state, gate.reason, gate.message, int(gate.since_ms) or None
            )
            pause = pauses.destinations.get(name)
            if gate.state == "broken" and not pause:
                own = (one.name for one in settings.triggers_of(name))
                waiting = [one for one in own if one in totals.waits]
                failing = _read_failing(client, known, waiting)
            if pause:
                condition = Condition.of_pause(DESTINATION, pause, "paused by a person")
        yield (
            name,
            DestinationStanding(
                condition or Condition(DESTINATION, "orphaned", _UNNAMED),
                rate,
                factor,
                totals.requests_of(name),
                totals.dead_letters[name],
                failing,
            ),
        )


def _read_failing(
    client: Redis, destination: Destination, triggers: Sequence[str]
) -> frozenset[str]:
    """Return the waiting triggers that have to wait for a breaker; none = all have to."""
    looks = read_looks(client, destination, triggers)
    failing = {name for name, look in looks.items() if isinstance(look, Closed) or look.probe}
    return frozenset(failing if len(failing) < len(looks) else ())


def _waits_of_failing(destinations: Mapping[str, DestinationStanding]) -> dict[str, Condition]:
    """Return the states of the triggers for which alone a breaker is open."""
    return {
        name: Condition(
            TRIGGER,
            "waits",
            f"its requests fail: {one.condition.message}",
            since_ms=one.condition.since_ms,
        )
        for one in destinations.values()
        if one.condition.state == "broken"
        for name in one.failing
    }


def _triggers(
    running: Standing, totals: Totals, pauses: Pauses, delayed: Mapping[str, Condition]
) -> Iterator[tuple[str, TriggerStanding]]:
    settings, processes = running.settings, running.processes
    stopped = {
        name: reason
        for process in processes
        if running.is_current(process)
        for name, reason in process.stopped.items()
    }
    for name in sorted({*settings.triggers, *totals.by_trigger}):
        trigger = settings.triggers.get(name)
        if trigger is None:
            condition = Condition(TRIGGER, "orphaned", _UNNAMED)
        elif pause := pauses.triggers.get(name):
            condition = Condition.of_pause(TRIGGER, pause)
        elif name in stopped:
            condition = Condition(TRIGGER, "stopped", stopped[name])
        else:
            condition = delayed.get(name, Condition(TRIGGER))
        yield (
            name,
            TriggerStanding(
                condition,
                trigger.destination if trigger else "",
                counts_of(*totals.by_trigger[name].values()),
                totals.lanes_of(name),
                totals.waits.get(name, {}),
                totals.oldest_live_ms.get(name),
                sorted({each for one in processes for each in one.versions.get(name, ())}),
                next((one.refused[name] for one in processes if name in one.refused), ""),
            ),
        )


def _delayed(
    found: Sequence[PartitionSnapshot], delays: Mapping[PartitionKeys, Delays]
) -> Iterator[tuple[str, Condition]]:
    """Yield the states of triggers with delayed work, where deliveries of them wait."""
    here: dict[str, dict[PartitionKeys, Delays]] = {}
    for stream in (stream for one in found for stream in one.waiting if stream.length):
        here.setdefault(stream.trigger, {})[stream.partition] = delays[stream.partition]
    for trigger, own in here.items():
        refused = [
            backoff
            for one in own.values()
            for key, backoff in one.backoffs.items()
            if backoff.refusal and key.split("|")[1] == trigger
        ]
        waits = [one.waits[trigger] for one in own.values() if trigger in one.waits]
        since_ms = min((one.since_ms for one in refused or waits), default=0) or None
        if refused:
            last = max(refused, key=lambda backoff: backoff.failures)
            number = f"{len(refused):,} deliveries were" if len(refused) > 1 else "a delivery was"
            reason = f"{number} refused, {times(last.failures)} so far: {last.refusal}"
            lasts = last.failures >= TRIES_ALONE
            yield trigger, Condition(TRIGGER, "refused", reason, "", since_ms, is_lasting=lasts)
        elif waits:
            wait = max(waits, key=lambda wait: wait.attempts)
            reason = f"nothing went through, tried {times(wait.attempts)}"
            reason += f": {wait.reason}" if wait.reason else ""
            yield trigger, Condition(TRIGGER, "waits", reason, since_ms=since_ms)


def _jobs(
    client: Redis, totals: Totals, pauses: Pauses, unreadable: list[str]
) -> Iterator[tuple[str, JobStanding]]:
    store = JobStore(client)
    names = sorted({*totals.by_job, *pauses.jobs, *store.names()})
    known = store.found(names, unreadable)
    for name in names:
        at = {place: counts_of(tally) for place, tally in totals.by_job[name].items()}
        job, counts = known.get(name), counts_of(*totals.by_job[name].values())
        condition = _condition_of_job(name, job, counts.waiting, pauses.jobs.get(name))
        rows = job.tally.rows if job else 0
        expected_rows = job.spec.expected_rows if job else 0
        watch = job.spec.watch if job else ""
        refused = job.tally.refused if job else 0
        yield name, JobStanding(condition, counts, rows, expected_rows, at, watch, refused)


def _condition_of_job(name: str, job: Job | None, waiting: int, pause: Pause | None) -> Condition:
    state = state_of(job, waiting=waiting, pause=pause)
    if pause and state == "paused":
        return Condition.of_pause(JOB, pause, "paused by a person")
    since_ms = job.since_ms or None if job else None
    return Condition(JOB, state, reason_of_state(name, job, state), since_ms=since_ms)


def _differing_files(running: Standing) -> Iterator[tuple[str, DifferingFile]]:
    """Yield the template files that are not the same at all workers, with who has which."""
    told = [one for one in running.processes if one.files.digests and running.is_current(one)]
    for name in sorted({name for one in told for name in one.files.digests}):
        holders: dict[str, list[str]] = {}
        for one in told:
            digest = one.files.digests.get(name, "")
            holders.setdefault(digest, []).append(f"{one.host}:{one.pid}")
        if len(holders) > 1:
            yield name, DifferingFile(holders, max(one.files.since_ms for one in told))


def _responses(client: Redis, partitions: Sequence[PartitionKeys]) -> WaitingResponses:
    answers = ask_each(
        client,
        partitions,
        lambda pipe, partition: pipe.xlen(partition.responses),
        lambda pipe, partition: pipe.get(partition.responseslost),
        lambda pipe, partition: pipe.xrange(partition.responses, count=1),
    )
    oldest_ms = (int(first[0][0].partition(b"-")[0]) for first in answers[2::3] if first)
    lost = sum(int(count or 0) for count in answers[1::3])
    return WaitingResponses(sum(answers[::3]), lost, min(oldest_ms, default=None))


_DISK: Final = {
    "aof_last_write_status": "the last write to the append-only file failed",
    "aof_last_bgrewrite_status": "the last rewrite of the append-only file failed",
    "rdb_last_bgsave_status": "the last snapshot failed",
}


def _redis(client: Redis, settings: Settings, ahead_seconds: float) -> RedisStanding:
    states = ask_how_it_is(client)
    # The memory that is used and allowed at the fullest master, and the keys of all.
    memory = [(int(one.info["used_memory"]), int(one.info["maxmemory"])) for one in states]
    used, most = max(memory, key=lambda pair: pair[0] / (pair[1] or float("inf")))
    database = f"db{client.connection_pool.connection_kwargs.get('db', 0)}"
    return RedisStanding(
        full=CapacityMeter(client, settings).memory(),
        used=used,
        most=most,
        weak=tuple(weak for state in states for weak in _weak(state, settings)),
        failing=tuple(
            _at(state, told)
            for state in states
            for name, told in _DISK.items()
            if state.info.get(name, "ok") != "ok"
        ),
        takes_writes=all(state.takes_writes for state in states),
        losses=read_losses(client),
        clock_ahead_seconds=ahead_seconds,
        uptime_seconds=min(float(one.info["uptime_in_seconds"]) for one in states),
        keys=sum(int(one.info.get(database, {}).get("keys", 0)) for one in states),
    )


def _weak(state: ServerState, settings: Settings) -> Iterator[str]:
    way, info = found_by(settings.redis.url), state.info
    unusable = why_unfit(info, way) or why_not_yet(info)
    weak = weaknesses(info, state.appendfsync, found_by=way, replicas=settings.redis.replicas)
    for reason in [unusable] if unusable else weak:
        yield _at(state, reason)


def _at(state: ServerState, told: str) -> str:
    return f"{state.where}: {told}" if state.where else told


_SHARE: Final = 0.015
"""The share of the time in which the standing is read: with very much in Redis, it is read less
often."""
_OLDEST_SECONDS: Final = 10.0
"""The longest time between two readings, also on a machine that is too busy to read it sooner."""
_FAILS_SECONDS: Final = 0.5


@dataclass(slots=True)
class Shared(Generic[_S]):
    """A value that all who ask share: it is read anew when somebody asks, and it is old.

    Args:
        read: A function that reads the value.
        fresh_seconds: The time for which the value is fresh; longer where reading takes long.
        changed_at: A function that returns the time of the last change that was made here.
    """

    read: Callable[[], _S]
    fresh_seconds: float
    changed_at: Callable[[], float] = float
    seconds: float = 0.0
    _found: _S | RedisUnavailable | None = None
    _begun_at: float = 0.0
    _fresh_until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> _S:
        """Return the value; who has waited for a reading that failed does not wait for another.

        Raises:
            RedisUnavailable: It can't be read.
        """
        with self._lock:
            if time.monotonic() >= self._fresh_until or self._begun_at <= self.changed_at():
                self._begun_at, begun = time.time(), time.monotonic()
                try:
                    self._found = self.read()
                except RedisUnavailable as error:
                    self._found = error
                ended = time.monotonic()
                by_share = min(_OLDEST_SECONDS, (ended - begun) / _SHARE)
                self.seconds = max(self.fresh_seconds, by_share)
                fails = isinstance(self._found, RedisUnavailable)
                self._fresh_until = ended + (_FAILS_SECONDS if fails else self.seconds)
            if isinstance(self._found, RedisUnavailable):
                raise self._found
            assert self._found is not None
            return self._found

"""The rules of health, by which `status`, its `--check` and `/readyz` name problems.

Each rule reads the standing and nothing else; `RULES` lists them in the order of the output. They
are about, in this order: Redis, the processes, what stops destinations, triggers and jobs, what is
late or grows, changes that are not finished, and the intake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from segrelay.ops.state.waiting import times
from segrelay.ops.status.problems import (
    ATTENTION,
    ILL,
    HealthProblem,
    ProblemSeverity,
    counted,
    expiring,
    in_short,
    is_late,
    live_late,
    outcomes,
    quarantine,
    standing_still,
)
from segrelay.ops.status.standing import Condition, Kind, Standing, TriggerStanding, read_standing
from segrelay.ops.status.totals import largest_first
from segrelay.producer.sync.store import Run
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.processes import (
    FLOWER,
    LIFE_MS,
    METRICS,
    SEEN_WITHIN_MS,
    WORKER,
    WORKER_ENDED,
)
from segrelay.worker.contract.redis.claim import refusal
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION, DIES, JOB, TRIGGER
from segrelay.worker.errors import RedisUnavailable
from segrelay.worker.logs import log_bug

NEARLY_FULL: Final = 0.7
"""Share of `maxmemory` from which Redis is nearly full; producers stop at 0.8."""
_SHOW: Final = "segrelay redis status"
_CHECK_FILE: Final = "segrelay config check"
_CHECK_LIVE: Final = "segrelay config check --live"
_CUSTOMERS_NOTICE: Final = ("appendonly is off", "throws events away", "nothing is accepted")
"""Words in the descriptions of those weaknesses of Redis that lose data or stop deliveries."""


def emptied(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if Redis came back empty, with what is lost and how to get it back."""
    if not standing.redis.losses:
        return
    loss = standing.redis.losses[0]
    last = datetime.fromtimestamp(loss.last_seen_ms / 1_000, UTC).isoformat(timespec="seconds")
    triggers = standing.settings.triggers.values()
    audiences = ", ".join(sorted({name for one in triggers for name in one.audiences}))
    name = f"The node {loss.node} of Redis" if loss.node else "Redis"
    message = (
        f"{name} came back empty: what waited, the dead letters, the ledger, jobs and members of"
        f" syncs as of {last} are gone there. Bring back the audiences ({audiences}) by a backfill"
        " of each, then acknowledge it"
    )
    mend = "segrelay backfill start; segrelay redis acknowledge"
    yield HealthProblem("redis_emptied", ILL, "", message, mend, loss.noticed_ms)


def memory(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if Redis is full, or nearly."""
    redis = standing.redis
    if redis.full:
        counts = standing.counts
        held = ", ".join(
            f"{count:,} {what}"
            for what, count in (
                ("waiting deliveries (workers drain them)", counts.waiting),
                ("dead letters (dlq replay, dlq discard)", counts.dead),
                ("quarantined records (quarantine discard)", standing.quarantined),
            )
            if count
        )
        frees = f"It holds {held}" if held else "Nothing waits, so only more memory helps"
        message = f"{redis.full} {frees}. Raise maxmemory if it is too low"
        yield HealthProblem("redis_full", ILL, "", message, _SHOW)
    elif redis.most and redis.used >= NEARLY_FULL * redis.most:
        message = (
            f"Redis uses {redis.used // 1_000_000:,} of {redis.most // 1_000_000:,} MB; producers"
            " stop at 80%: raise its maxmemory"
        )
        yield HealthProblem("redis_nearly_full", ATTENTION, "", message, _SHOW)


def durability(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if Redis can't write to its disk, or is less durable than it has to be."""
    refuses = (
        "" if standing.redis.takes_writes else ", so it refuses writes and nothing is delivered"
    )
    for failure in standing.redis.failing:
        message = f"{failure}{refuses}: make room on its disk, and look at its log"
        yield HealthProblem("redis_disk_fails", ILL, "", message, _SHOW)
    for weakness in standing.redis.weak:
        severity = ILL if any(words in weakness for words in _CUSTOMERS_NOTICE) else ATTENTION
        yield HealthProblem("redis_not_durable", severity, "", weakness, _SHOW)


def messages_fail(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if the address of messages about problems takes none."""
    failing, notify = standing.alerts_fail, standing.settings.operate.notify
    if failing and notify and failing.tries >= FAILED_POSTS:
        message = (
            f"operate.notify.url ({notify.url.origin}) has taken no message, tried"
            f" {times(failing.tries)}: {failing.reason}. Problems are not announced; correct the"
            " address, restart what was started with it, and send a test"
        )
        test = "segrelay status --notify-test"
        yield HealthProblem(UNHEARD, ATTENTION, "", message, test, failing.since_ms)


UNHEARD: Final = "notify_fails"
"""The problem that messages are not taken; it is not told to those who do not take them."""
FAILED_POSTS: Final = 3
"""Tries in a row that failed until the address of messages is a problem; they take 3 s."""
CLOCK_SECONDS: Final = 5.0
CLOCK_ILL_SECONDS: Final = 60.0
UNSEEN_MS: Final = 30_000
"""Milliseconds after which a process counts as gone; each says every five seconds that it runs."""
RESTART_MS: Final = 20_000
"""Milliseconds without any worker after the last one has ended in good order: a restart takes them
on a busy machine."""
FOUND_AGAIN_MS: Final = 10_000
"""Milliseconds within which workers find a Redis that was started, or came back empty."""
AFTER_REDIS_MS: Final = 20_000
"""Milliseconds after which other processes have found a Redis that is back."""
FILES_AT_START_MS: Final = 3_000
"""Milliseconds within which a worker that was started has read its templates."""


def unreadable(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem for each record in Redis that can't be read; all else goes on without it."""
    for name in standing.unreadable:
        message = (
            f"what Redis keeps of {name} can't be read: it is damaged, or a newer version of"
            " segrelay has written it. All else goes on without it. Use the newest version of"
            " segrelay everywhere"
        )
        yield HealthProblem("record_unreadable", ATTENTION, name, message, "")


def workers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if no worker runs, unless one was seen seconds ago."""
    if standing.workers or not standing.redis.takes_writes:
        return
    redis, seen_ms = standing.redis, min(standing.seen.get(WORKER, 0), standing.now_ms)
    is_new = redis.uptime_seconds * 1_000 < FOUND_AGAIN_MS or any(
        standing.now_ms - loss.noticed_ms < FOUND_AGAIN_MS for loss in redis.losses
    )
    has_ended = standing.seen.get(WORKER_ENDED, 0) >= seen_ms > 0
    if is_new or standing.now_ms - seen_ms < (RESTART_MS if has_ended else LIFE_MS):
        return
    unseen = f"for {in_short((standing.now_ms - seen_ms) / 1_000)}" if seen_ms else "yet"
    message = f"no worker has been seen {unseen}, so nothing is delivered"
    yield HealthProblem("no_worker", ILL, "", message, "segrelay worker", seen_ms or None)


def deploys(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if processes differ in configuration for longer than a deploy."""
    started, settings = standing.started, standing.settings
    if not started:
        return
    newest = started[0]
    older = [one for one in started if one.config != newest.config]
    since_ms = min(one.begun_ms for one in started if one.config == newest.config)
    if older and _is_deployed(standing, since_ms):
        names = ", ".join(one.name for one in older)
        message = (
            f"these run an older configuration than {newest.name}, which was started last: {names}."
            " Restart them"
        )
        yield HealthProblem("worker_configuration", ILL, "", message, _CHECK_FILE, since_ms)
    elif all(one.config != settings.fingerprint for one in started):
        message = (
            f"nothing that runs was started with {settings.source.name} as it is here, so what was"
            " changed in it does not hold yet. Check it, then restart the workers and the receiver"
        )
        yield HealthProblem("worker_configuration", ATTENTION, "", message, _CHECK_FILE)


def _is_deployed(standing: Standing, since_ms: int) -> bool:
    """Say whether a rolling restart that began at a time has had its time."""
    within_ms = standing.settings.operate.deploy_within_seconds * 1_000
    return standing.now_ms - since_ms >= within_ms


def too_few_workers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if fewer workers run than are configured, for longer than a deploy takes."""
    count, meant = len(standing.workers), standing.settings.operate.workers
    if not 0 < count < meant:
        return
    since_ms = standing.now_ms
    for sample in standing.samples:
        if sample.workers >= meant:
            break
        since_ms = sample.at_ms
    if _is_deployed(standing, since_ms):
        message = f"{count:,} of {meant:,} workers run (operate.workers)"
        yield HealthProblem("too_few_workers", ATTENTION, "", message, "segrelay worker", since_ms)


def _is_of_redis(standing: Standing) -> bool:
    """Say whether processes are silent because of Redis, or were until seconds ago."""
    redis = standing.redis
    return not redis.takes_writes or redis.uptime_seconds * 1_000 < AFTER_REDIS_MS


def companions(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if Flower or the metrics are down; one that has never run is not missed."""
    configured = {FLOWER: standing.settings.flower, METRICS: standing.settings.metrics}
    for kind, seen_ms in standing.seen.items() if not _is_of_redis(standing) else ():
        unseen_ms = standing.now_ms - seen_ms
        if configured.get(kind) and unseen_ms > UNSEEN_MS:
            message = f"configured, but not seen for {in_short(unseen_ms / 1_000)}"
            yield HealthProblem(f"{kind}_down", ATTENTION, "", message, f"segrelay {kind}", seen_ms)


def ailing_workers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield workers whose processes were killed lately, or that found messages not of ours."""
    for one in standing.processes:
        name = f"{one.host}:{one.pid}"
        if one.killed and standing.now_ms - one.killed_ms < KILLED_LATELY_MS:
            severity = ILL if one.killed >= MANY_KILLED else ATTENTION
            message = (
                f"{plural(one.killed, 'process', 'processes')} of it ended without being told to,"
                " since it was started: by the system for want of memory, or by a template or"
                " library that crashed. Nothing is lost; see its log and the system's, and give it"
                " more memory if that is why"
            )
            show = "segrelay dlq causes"
            yield HealthProblem("processes_killed", severity, name, message, show, one.killed_ms)
        if one.refused_messages:
            message = (
                "something else writes to the broker:"
                f" {plural(one.refused_messages, 'message')} from there can't be of segrelay and"
                " got thrown away; no event was lost. Give segrelay a Redis or a user of its own,"
                " then restart the worker"
            )
            yield HealthProblem("messages_refused", ATTENTION, name, message, "")


KILLED_LATELY_MS: Final = 900_000
MANY_KILLED: Final = 10


def clocks(standing: Standing) -> Iterator[HealthProblem]:
    """Yield machines whose clock differs from that of Redis.

    Machines may share a name, as containers or clones do: the process that is furthest off counts.
    """
    found = [(one.host, float(one.clock_ahead_seconds)) for one in standing.processes]
    found += [
        (name.rpartition(":")[0], one.clock_ahead_seconds)
        for name, one in standing.receivers.running.items()
        if standing.now_ms - one.seen_ms <= SEEN_WITHIN_MS
    ]
    ahead: dict[str, float] = {}
    for host, seconds in [*found, ("this machine", standing.redis.clock_ahead_seconds)]:
        ahead[host] = max(ahead.get(host, 0.0), seconds, key=abs)
    for host, seconds in ahead.items():
        if abs(seconds) >= CLOCK_SECONDS:
            severity = ILL if abs(seconds) >= CLOCK_ILL_SECONDS else ATTENTION
            word = "ahead of" if seconds > 0 else "behind"
            message = f"its clock is {in_short(abs(seconds))} {word} that of Redis: set it by NTP"
            yield HealthProblem("clock_differs", severity, host, message, "")


class StopRule(NamedTuple):
    """The problem that a state of a destination, trigger or job is.

    Attributes:
        severity: None = ill if it lasts, or if live deliveries are late; else it needs a look.
        command: `{}` is the name of what is stopped, `{template}` its template.
        message: `{}` is the reason, behind which stands what to do that no command does.
    """

    name: str
    severity: ProblemSeverity | None
    command: str
    message: str = "{}"


_RESUME: Final = "segrelay resume {}"
_BROKEN: Final = (
    "it answers with errors or not at all: {}. segrelay tries again by itself and loses nothing; if"
    " it lasts, look at the destination and at the network"
)
_STOPPED: Final = "{}. A secret in .env counts after a restart of the workers"
_REFUSED: Final = "{}. Correct its template or what the destination knows"
_ACCESS: Final = (
    "{}. Put the right credentials into .env and restart the workers, which try them at once;"
    " resume it if the old ones are right after all"
)
_UNKNOWN: Final = (
    "{}. Look at a whole answer of its address, and resume it once that is right again: one request"
    " is sent first"
)
_DIES: Final = "{}. Correct its template, resume it, and replay what died"
_BY_ITSELF: Final[Mapping[str, StopRule]] = {
    "access_refused": StopRule("", ILL, f"{_CHECK_LIVE}; {_RESUME}", _ACCESS),
    "unknown_answer": StopRule("", ILL, _RESUME, _UNKNOWN),
    DIES: StopRule(
        "",
        ILL,
        f"segrelay template check {{template}}; {_RESUME}; segrelay dlq replay --trigger {{name}}",
        _DIES,
    ),
}
"""Rules for triggers and destinations that paused themselves, by how the reason begins."""
STOP_RULES: Final[Mapping[tuple[Kind, str], StopRule]] = {
    (DESTINATION, "paused"): StopRule("destination_paused", ILL, _RESUME),
    (DESTINATION, "broken"): StopRule("destination_broken", ILL, _CHECK_LIVE, _BROKEN),
    (TRIGGER, "paused"): StopRule("trigger_paused", ILL, _RESUME),
    (TRIGGER, "stopped"): StopRule("trigger_stopped", ILL, _CHECK_FILE, _STOPPED),
    (TRIGGER, "refused"): StopRule(
        "trigger_refused", None, "segrelay template check {template}", _REFUSED
    ),
    (TRIGGER, "waits"): StopRule("trigger_waits", None, "segrelay tap --trigger {name}"),
    (JOB, "failed"): StopRule("job_failed", ILL, "segrelay backfill status {}"),
    (JOB, "interrupted"): StopRule("job_interrupted", ILL, "segrelay backfill resume {}"),
    (JOB, "paused"): StopRule("job_paused", ATTENTION, "segrelay backfill resume {}"),
    (JOB, "at its canary"): StopRule("job_at_canary", ATTENTION, "segrelay backfill resume {}"),
}
SLOW_FACTOR: Final = 0.5
"""A destination counts as slowed if at most this share of its configured rate is left."""
FRESH_MS: Final = 10_000
"""Milliseconds for which a trigger may wait after failures until that is a problem."""
FILES_WITHIN_MS: Final = 8_000
"""Milliseconds that it may take to copy changed files to all workers."""


def stopped_destinations(standing: Standing) -> Iterator[HealthProblem]:
    """Yield destinations that are paused, broken, or slowed."""
    for name, one in standing.destinations.items():
        yield from _stopped(standing, name, one.condition)
        if not one.condition.stops and one.factor <= SLOW_FACTOR:
            message = (
                f"it answered 429 (too many requests), so segrelay sends {one.factor:.0%} of the"
                " configured rate and raises that by itself; if it lasts, something else uses the"
                " same key, or `rate` is too high"
            )
            yield HealthProblem("destination_slowed", ATTENTION, name, message, "")


def stopped_triggers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers that are paused or stopped, or of which nothing goes through."""
    for name, one in standing.triggers.items():
        is_ill = one.condition.is_lasting or is_late(standing, one)
        if one.condition.state == "waits" and _is_told_otherwise(standing, one, is_ill=is_ill):
            continue
        yield from _stopped(standing, name, one.condition, is_ill=is_ill)


def _is_told_otherwise(standing: Standing, one: TriggerStanding, *, is_ill: bool) -> bool:
    """Say whether it is no problem of its own that a trigger waits.

    Its destination is broken or paused for all triggers, or it has begun to wait just now: then
    that may be what comes next.
    """
    destination = standing.destinations.get(one.destination)
    if destination and destination.condition.stops and not destination.failing:
        return True
    since_ms = one.condition.since_ms
    return not is_ill and since_ms is not None and standing.now_ms - since_ms < FRESH_MS


def stopped_jobs(standing: Standing) -> Iterator[HealthProblem]:
    """Yield backfills that failed, were interrupted or paused, or wait at their canary."""
    for name, one in standing.jobs.items():
        if one.condition.state == "interrupted" and one.watch in standing.watches:
            continue  # its watch goes on with it, or has a problem of its own
        yield from _stopped(standing, name, one.condition)


def _stopped(
    standing: Standing,
    name: str,
    condition: Condition,
    *,
    is_ill: bool = False,
) -> Iterator[HealthProblem]:
    """Yield the problem of a state; `is_ill` holds where the rule says nothing."""
    rule = STOP_RULES.get((condition.kind, condition.state))
    if not rule:
        return
    known, severity = standing.settings, rule.severity or (ILL if is_ill else ATTENTION)
    own = (one for begin, one in _BY_ITSELF.items() if condition.reason.startswith(begin))
    told = next(own, rule) if condition.state == "paused" else rule
    message = told.message.format((condition.why or "no reason was given").removesuffix("."))
    is_unclear = condition.kind != JOB and name in known.destinations and name in known.triggers
    named = f"{condition.kind}:{name}" if is_unclear else name
    command = told.command.format(named, name=name, template=standing.template_of(name))
    yield HealthProblem(rule.name, severity, name, message, command, condition.since_ms)


def templates(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers with a refused template change, and templates whose compiled form is off."""
    check = "segrelay template check"
    for name, one in standing.triggers.items():
        if one.refused:
            message = f"its file was changed and is not used: {one.refused}"
            mend = f"{check} {standing.template_of(name)}".rstrip()
            yield HealthProblem("template_refused", ILL, name, message, mend)
    for process in standing.processes:
        for name, count in process.doubted.items():
            message = (
                f"its compiled form is off in {process.host}:{process.pid}: it differed {count:,}"
                " times from Jsonnet, which renders now"
            )
            yield HealthProblem("template_doubted", ATTENTION, name, message, f"{check} {name}")


def template_files(standing: Standing) -> Iterator[HealthProblem]:
    """Yield files of templates that are not the same at all workers."""
    begun_ms = [one.begun_ms for one in standing.workers]
    for name, one in standing.template_files.items():
        came_with_start = any(abs(one.since_ms - at_ms) < FILES_AT_START_MS for at_ms in begun_ms)
        if standing.now_ms - one.since_ms < FILES_WITHIN_MS:
            continue
        if came_with_start and not _is_deployed(standing, one.since_ms):
            continue
        holders = one.workers_by_digest.items()
        versions = "; ".join(
            f"{', '.join(workers)} {f'has {digest}' if digest else 'lacks it'}"
            for digest, workers in holders
        )
        yield HealthProblem(
            "template_differs",
            ILL,
            name,
            f"the file differs between workers, so it depends on chance what is sent: {versions}."
            " Copy the same templates folder to all workers",
            "",
            one.since_ms,
        )


def orphans(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem for orphaned deliveries, and one for each refused destination."""
    found = standing.totals.orphans
    if found:
        commands = [f"segrelay discard --trigger {name}" for name in found]
        message = (
            f"the trigger of"
            f" {plural(found.total(), 'waiting delivery', 'waiting deliveries')} is gone"
            f" ({counted(largest_first(found))})"
        )
        yield HealthProblem("orphaned", ILL, "", message, "; ".join(commands))
    for name, known_as in standing.refused_destinations.items():
        mend = f"segrelay redis confirm-destination {name}"
        yield HealthProblem("destination_refused", ILL, name, refusal(name, known_as), mend)


def responses(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if outcomes for response streams are old, as workers send them at once."""
    found, triggers = standing.responses, standing.settings.triggers.values()
    waited_ms = standing.now_ms - (found.oldest_ms or standing.now_ms)
    if waited_ms > LATE_RESPONSE_MS and any(one.response_stream for one in triggers):
        message = (
            f"of {plural(found.waiting, 'response')} for Lytics (response_stream) the oldest has"
            f" waited for {in_short(waited_ms / 1_000)}; beyond 10,000 a partition the oldest are"
            " dropped. Workers send them: see responses.wait in their logs"
        )
        oldest_ms = found.oldest_ms
        yield HealthProblem("responses_wait", ATTENTION, "", message, "segrelay worker", oldest_ms)


LATE_RESPONSE_MS: Final = 900_000
"""Milliseconds for which an outcome may wait for its response stream."""


def aborted_jobs(standing: Standing) -> Iterator[HealthProblem]:
    """Yield aborted jobs of which deliveries still wait: the command broke off in between."""
    for job, one in standing.jobs.items():
        if one.condition.state == "aborted" and one.counts.waiting:
            message = (
                f"it was aborted, and {one.counts.waiting:,} of its deliveries were not discarded;"
                " give the command again"
            )
            mend = f"segrelay backfill abort {job}"
            yield HealthProblem("abort_unfinished", ATTENTION, job, message, mend)


def verified(standing: Standing) -> Iterator[HealthProblem]:
    """Yield destinations that hold something else than was delivered, as a worker has read."""
    for name, one in standing.verified.items():
        if one.differences:
            message = (
                f"of {plural(one.people, 'person', 'people')} who were read back,"
                f" {plural(one.differences, 'membership')} differ from what was delivered"
            )
            yield HealthProblem("insider_differs", ILL, name, message, "segrelay verify", one.at_ms)
        if one.failures >= FAILED_STEPS:
            message = f"nobody can be read back from it: {one.problem}"
            yield HealthProblem("verify_fails", ATTENTION, name, message, _CHECK_LIVE)


FEW_REFUSED: Final = 3
UNTAKEN_MS: Final = 5_000
"""Milliseconds without a taken request before refusals are ill: the time between two reports."""
OVER_MS: Final = 20_000
"""Milliseconds without another refusal after which refusals are over, if requests were taken."""
FAILED_STEPS: Final = 3
"""Failed steps of a sync in a row that are a problem; the third is 7 s after the first."""
OVERDUE_MS: Final = 60_000
LONGEST_RUN_MS: Final = 3_600_000
_CHECK: Final = "segrelay serve --check"
_UNAUTHORIZED, _TOO_LARGE, _UNAVAILABLE = 401, 413, 503


def receivers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if no receiver runs; one that has never run is not missed."""
    found = standing.receivers
    if not standing.settings.producer.webhook or not found.seen_ms or _is_of_redis(standing):
        return
    unseen_ms = standing.now_ms - found.seen_ms
    if unseen_ms > SEEN_WITHIN_MS:
        unseen = in_short(unseen_ms / 1_000)
        message = f"no receiver has been seen for {unseen}: it is down, or starved"
        yield HealthProblem("receiver_down", ILL, "", message, "segrelay serve", found.seen_ms)


_REFUSED_FOR: Final = {
    _UNAUTHORIZED: ("receiver_unauthorized", "their secret is missing or wrong", _CHECK),
    _UNAVAILABLE: ("receiver_unavailable", "Redis could not store what came", _SHOW),
    _TOO_LARGE: (
        "receiver_too_large",
        "Lytics dropped their events for good. Raise producer.webhook.max_bytes",
        _CHECK,
    ),
}
"""The problem, its meaning and the command that shows more, by the HTTP status of the refusal."""


def refusals(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem for requests that receivers refused in the last hour."""
    found = standing.receivers
    for status, (name, meaning, command) in _REFUSED_FOR.items():
        is_lost, is_over = status == _TOO_LARGE, _is_over(standing, status)
        is_of_redis = status == _UNAVAILABLE and (_is_of_redis(standing) or standing.redis.full)
        count = found.answers.get(status)
        if not count or is_of_redis or (is_over and not is_lost):
            continue
        is_ill = not is_over if is_lost else _takes_none(standing, status)
        message = f"{status} for {plural(count, 'request')} in the last hour: {meaning}"
        if is_ill and status == _UNAUTHORIZED:
            message += ", and none was taken since. Was it changed at one end only?"
        severity = ILL if is_ill else ATTENTION
        yield HealthProblem(name, severity, "", message, command)


def _takes_none(standing: Standing, status: int) -> bool:
    """Say whether requests were refused with this status, and none was taken meanwhile."""
    found = standing.receivers
    is_quiet = standing.now_ms - found.taken_ms >= UNTAKEN_MS
    return is_quiet and found.since_taken.get(status, 0) >= FEW_REFUSED


def _is_over(standing: Standing, status: int) -> bool:
    """Say whether requests were taken since the last one was refused with this status."""
    found = standing.receivers
    is_quiet = standing.now_ms - found.last_ms.get(status, standing.now_ms) >= OVER_MS
    return is_quiet and found.taken_ms > 0 and not found.since_taken.get(status, 0)


def silence(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if no event has come for longer than usual, and none was refused."""
    found, within = standing.receivers, standing.settings.operate.events_within_seconds
    is_down = bool(found.seen_ms) and standing.now_ms - found.seen_ms > SEEN_WITHIN_MS
    is_refused = any(_takes_none(standing, one) for one in (_UNAUTHORIZED, _UNAVAILABLE))
    if not within or not found.event_ms or is_down or is_refused:
        return
    event_ms = max(found.event_ms, found.back_ms)
    if standing.now_ms - event_ms > within * 1_000:
        silent = in_short((standing.now_ms - event_ms) / 1_000)
        message = f"the receiver got no event for {silent}: does Lytics' job still run?"
        yield HealthProblem("no_events", ILL, "", message, _CHECK, event_ms)


def syncs(standing: Standing) -> Iterator[HealthProblem]:
    """Yield syncs that fail, wait for a person, or are overdue."""
    for name, run in standing.syncs.items():
        show = f"segrelay sync status {name}"
        if run.asks:
            message = f"it waits for a person: {run.asks}"
            mend = f"segrelay sync confirm {name}"
            yield HealthProblem("sync_waits", ILL, name, message, mend, run.last["since_ms"])
        elif run.failures:
            is_ill = run.refused or run.failures >= FAILED_STEPS
            severity = ILL if is_ill else ATTENTION
            message = f"failed {times(run.failures)} in a row: {run.problem}"
            yield HealthProblem("sync_fails", severity, name, message, show)
        elif _is_overdue(run, standing.settings.sync[name].every_seconds, standing.now_ms):
            message = (
                "a run has not begun in time, or lasts for too long: see whether workers run and"
                " what their logs say"
            )
            mend = f"segrelay sync run {name}; {show}"
            since_ms = run.next_ms or run.begun_ms
            yield HealthProblem("sync_overdue", ILL, name, message, mend, since_ms)


def watches(standing: Standing) -> Iterator[HealthProblem]:
    """Yield watches that fail or are overdue, or have found files of which no job can be made."""
    for name, one in standing.watches.items():
        show = f"segrelay backfill watch {name}"
        every_ms = 1_000 * standing.settings.backfill.watch[name].every_seconds
        if one.failures:
            severity = ILL if one.failures >= FAILED_STEPS else ATTENTION
            message = f"failed {times(one.failures)} in a row: {one.problem}"
            since_ms = one.failing_since_ms
            yield HealthProblem("watch_fails", severity, name, message, show, since_ms)
        elif one.next_ms and standing.now_ms > one.next_ms + max(OVERDUE_MS, every_ms / 2):
            message = "a look should have begun: look at the workers' logs"
            yield HealthProblem("watch_overdue", ILL, name, message, show, one.next_ms)
        if one.refused:
            why = next(iter(one.refused.values()))
            count = plural(len(one.refused), "new file")
            message = f"{count} can't be taken, and the others are: {why} Replace or remove it"
            yield HealthProblem("watch_refused", ILL, name, message, show)


def _is_overdue(run: Run, every_seconds: float, now_ms: int) -> bool:
    """Say whether a run has not begun in time; one that began late is overdue until it ends."""
    every_ms = every_seconds * 1_000
    grace_ms = max(OVERDUE_MS, every_ms / 2)
    if run.has_ended:
        return bool(run.next_ms) and now_ms > run.next_ms + grace_ms
    due_ms = run.last.get("begun_ms", run.begun_ms) + every_ms
    is_long = now_ms > run.begun_ms + max(LONGEST_RUN_MS, 2 * every_ms)
    return bool(run.begun_ms) and (is_long or run.begun_ms > due_ms + grace_ms)


UNREACHABLE: Final = "redis_unreachable"

RULES: Final[tuple[Callable[[Standing], Iterable[HealthProblem]], ...]] = (
    emptied,
    memory,
    durability,
    unreadable,
    workers,
    deploys,
    too_few_workers,
    companions,
    clocks,
    ailing_workers,
    messages_fail,
    stopped_destinations,
    stopped_triggers,
    stopped_jobs,
    templates,
    template_files,
    orphans,
    live_late,
    standing_still,
    outcomes,
    quarantine,
    expiring,
    responses,
    aborted_jobs,
    verified,
    receivers,
    refusals,
    silence,
    syncs,
    watches,
)


def problems_of(standing: Standing) -> list[HealthProblem]:
    """Return all problems, the ill ones first."""
    found = [problem for rule in RULES for problem in rule(standing)]
    return sorted(found, key=lambda problem: problem.severity != ILL)


def read_problems(client: Redis, settings: Settings) -> list[HealthProblem]:
    """Read the standing and return its problems, the ill ones first."""
    return problems_of(read_standing(client, settings))


def read_ill_names(client: Redis, settings: Settings) -> Sequence[str]:
    """Return the names of the ill problems, for `/readyz`; whatever health meets, it answers."""
    try:
        found = read_problems(client, settings)
    except RedisUnavailable:
        return (UNREACHABLE,)
    except Exception as error:  # noqa: BLE001 - the receiver is ready, whatever health says
        log_bug(error, "health.failed")
        return ()
    return sorted({problem.name for problem in found if problem.severity == ILL})

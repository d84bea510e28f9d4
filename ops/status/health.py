"""The rules of health, by which `status`, its `--check` and `/readyz` name problems.

Each rule reads the standing and nothing else; `RULES` lists them in the order of the output. They
are about, in this order: Redis, the processes, what stops destinations, triggers and jobs, what is
late or grows, changes that are not finished, and the intake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from segrelay.ops.state.partitions import largest_first
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
from segrelay.ops.terminal.moments import shown_ms
from segrelay.producer.sync.store import Run
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.processes import LIFE_MS, SEEN_WITHIN_MS, WORKER, WORKER_ENDED
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


def redis(standing: Standing) -> Iterator[HealthProblem]:
    """Yield what is wrong with Redis: it came back empty, is full, or does not keep what it has."""
    found, counts = standing.redis, standing.counts
    for loss in found.losses[:1]:
        triggers = standing.settings.triggers.values()
        audiences = ", ".join(sorted({name for one in triggers for name in one.audiences}))
        message = (
            f"{f'The node {loss.node} of Redis' if loss.node else 'Redis'} came back empty: what"
            " waited, the dead letters, the ledger, jobs and members of syncs as of"
            f" {shown_ms(loss.last_seen_ms, 'seconds')} are gone there. Bring back the audiences"
            f" ({audiences}) by a backfill of each, then acknowledge it"
        )
        mend = "segrelay backfill start; segrelay redis acknowledge"
        yield HealthProblem("redis_emptied", ILL, "", message, mend, loss.noticed_ms)
    if found.full:
        message = (
            f"{found.full} It holds {counts.waiting:,} waiting deliveries (workers drain them),"
            f" {counts.dead:,} dead letters (dlq replay, dlq discard) and {standing.quarantined:,}"
            " quarantined records (quarantine discard). Raise maxmemory if it is too low"
        )
        yield HealthProblem("redis_full", ILL, "", message, _SHOW)
    elif found.most and found.used >= NEARLY_FULL * found.most:
        message = (
            f"Redis uses {found.used // 1_000_000:,} of {found.most // 1_000_000:,} MB; producers"
            " stop at 80%: raise its maxmemory"
        )
        yield HealthProblem("redis_nearly_full", ATTENTION, "", message, _SHOW)
    refuses = "" if found.takes_writes else ", so it refuses writes and nothing is delivered"
    for failure in found.failing:
        message = f"{failure}{refuses}: make room on its disk, and look at its log"
        yield HealthProblem("redis_disk_fails", ILL, "", message, _SHOW)
    for weakness in found.weak:
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
RESTART_MS: Final = 20_000
"""Milliseconds without any worker after the last one has ended in good order: a restart takes them
on a busy machine."""
FOUND_AGAIN_MS: Final = 10_000
"""Milliseconds within which workers find a Redis that was started, or came back empty."""
AFTER_REDIS_MS: Final = 20_000
"""Milliseconds after which other processes have found a Redis that is back."""


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
    found, now_ms = standing.redis, standing.now_ms
    seen_ms = min(standing.seen.get(WORKER, 0), now_ms)
    redis_ms = [found.uptime_seconds * 1_000, *(now_ms - one.noticed_ms for one in found.losses)]
    has_ended = standing.seen.get(WORKER_ENDED, 0) >= seen_ms > 0
    is_fresh = now_ms - seen_ms < (RESTART_MS if has_ended else LIFE_MS)
    if not is_fresh and min(redis_ms) >= FOUND_AGAIN_MS:
        unseen = f"for {in_short((now_ms - seen_ms) / 1_000)}" if seen_ms else "yet"
        message = f"no worker has been seen {unseen}, so nothing is delivered"
        yield HealthProblem("no_worker", ILL, "", message, "segrelay worker", seen_ms or None)


def deploys(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if processes differ in configuration for longer than a deploy."""
    started, settings = standing.started, standing.settings
    newest = standing.newest_config
    older = [one.name for one in started if one.config != newest]
    since_ms = min((one.begun_ms for one in started if one.config == newest), default=0)
    if older and _is_deployed(standing, since_ms):
        message = (
            f"these run an older configuration than {started[0].name}, which was started last:"
            f" {', '.join(older)}. Restart them"
        )
        yield HealthProblem("worker_configuration", ILL, "", message, _CHECK_FILE, since_ms)
    elif all(one.config != settings.fingerprint for one in started) and started:
        message = (
            f"nothing that runs was started with {settings.source.name} as it is here, so what was"
            " changed in it does not hold yet. Check it, then restart the workers and the receiver"
        )
        yield HealthProblem("worker_configuration", ATTENTION, "", message, _CHECK_FILE)


def _is_deployed(standing: Standing, since_ms: int) -> bool:
    """Say whether a rolling restart that began at a time has had its time."""
    within_ms = standing.settings.operate.deploy_within_seconds * 1_000
    return standing.now_ms - since_ms >= within_ms


def _is_of_redis(standing: Standing) -> bool:
    """Say whether processes are silent because of Redis, or were until seconds ago."""
    found = standing.redis
    return not found.takes_writes or found.uptime_seconds * 1_000 < AFTER_REDIS_MS


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
    running = standing.live_receivers.items()
    found += [(name.rpartition(":")[0], one.clock_ahead_seconds) for name, one in running]
    found.append(("this machine", standing.redis.clock_ahead_seconds))
    # Of a machine that is named twice, the last pair counts.
    for host, seconds in dict(sorted(found, key=lambda one: abs(one[1]))).items():
        if abs(seconds) >= CLOCK_SECONDS:
            severity = ILL if abs(seconds) >= CLOCK_ILL_SECONDS else ATTENTION
            word = "ahead of" if seconds > 0 else "behind"
            message = f"its clock is {in_short(abs(seconds))} {word} that of Redis: set it by NTP"
            yield HealthProblem("clock_differs", severity, host, message, "")


class StopRule(NamedTuple):
    """The problem that a state of a destination, trigger or job is.

    Attributes:
        severity: The problem's severity; None = ill if it lasts or live deliveries are late, else
            it needs a look.
        command: The command that helps, with `{}` for the name of what is stopped and `{template}`
            for its template.
        message: The message, with `{}` for the reason, and behind it what to do that no command
            does.
    """

    name: str
    severity: ProblemSeverity | None
    command: str
    message: str = "{}"


_RESUME: Final = "segrelay resume {}"
_GO_ON: Final = "segrelay backfill resume {}"
_BROKEN: Final = (
    "it answers with errors or not at all: {}. segrelay tries again by itself and loses nothing; if"
    " it lasts, look at the destination and at the network"
)
_STOPPED: Final = "{}. A secret in .env counts after a restart of the workers"
_REFUSED: Final = "{}. Correct its template or what the destination knows"
_CHECK_TEMPLATE: Final = "segrelay template check {template}"
_ABORTED: Final = "it was aborted, but not all of its deliveries were discarded; do it again"
STOP_RULES: Final[Mapping[tuple[Kind, str], StopRule]] = {
    (DESTINATION, "paused"): StopRule("destination_paused", ILL, _RESUME),
    (DESTINATION, "broken"): StopRule("destination_broken", ILL, _CHECK_LIVE, _BROKEN),
    (TRIGGER, "paused"): StopRule("trigger_paused", ILL, _RESUME),
    (TRIGGER, "stopped"): StopRule("trigger_stopped", ILL, _CHECK_FILE, _STOPPED),
    (TRIGGER, "refused"): StopRule("trigger_refused", None, _CHECK_TEMPLATE, _REFUSED),
    (TRIGGER, "waits"): StopRule("trigger_waits", None, "segrelay tap --trigger {name}"),
    (JOB, "failed"): StopRule("job_failed", ILL, "segrelay backfill status {}"),
    (JOB, "interrupted"): StopRule("job_interrupted", ILL, _GO_ON),
    (JOB, "paused"): StopRule("job_paused", ATTENTION, _GO_ON),
    (JOB, "at its canary"): StopRule("job_at_canary", ATTENTION, _GO_ON),
    (JOB, "aborted"): StopRule(
        "abort_unfinished", ATTENTION, "segrelay backfill abort {}", _ABORTED
    ),
}
_ACCESS: Final = (
    "{}. Put the right credentials into .env and restart the workers, which try them at once;"
    " resume it if the old ones are right after all"
)
_UNKNOWN: Final = (
    "{}. Look at a whole answer of its address, and resume it once that is right again: one request"
    " is sent first"
)
_DIES: Final = "{}. Correct its template, resume it, and replay what died"
_BY_ITSELF: Final[Mapping[str, tuple[str, str]]] = {
    "access_refused": (f"{_CHECK_LIVE}; {_RESUME}", _ACCESS),
    "unknown_answer": (_RESUME, _UNKNOWN),
    DIES: (f"{_CHECK_TEMPLATE}; {_RESUME}; segrelay dlq replay --trigger {{name}}", _DIES),
}
"""Commands and messages for what has paused itself, by how the reason begins."""
SLOW_FACTOR: Final = 0.5
"""A destination counts as slowed if at most this share of its configured rate is left."""
FRESH_MS: Final = 10_000
"""Milliseconds for which a trigger may wait after failures until that is a problem."""


def stopped(standing: Standing) -> Iterator[HealthProblem]:
    """Yield what is paused, stopped or failed, destinations first, and slowed destinations."""
    for name, place in standing.destinations.items():
        yield from _stopped(standing, name, place.condition)
        if not place.condition.stops and place.factor <= SLOW_FACTOR:
            message = (
                f"it answered 429 (too many requests), so segrelay sends {place.factor:.0%} of the"
                " configured rate and raises that by itself; if it lasts, something else uses the"
                " same key, or `rate` is too high"
            )
            yield HealthProblem("destination_slowed", ATTENTION, name, message, "")
    for name, one in standing.triggers.items():
        is_ill = one.condition.is_lasting or is_late(standing, one)
        if one.condition.state != "waits" or not _is_told_otherwise(standing, one, is_ill=is_ill):
            yield from _stopped(standing, name, one.condition, is_ill=is_ill)
    for name, job in standing.jobs.items():
        state = job.condition.state
        # A job's watch goes on with it, or has a problem of its own.
        goes_on = state == "interrupted" and job.watch in standing.watches
        if not goes_on and (state != "aborted" or job.counts.waiting):
            yield from _stopped(standing, name, job.condition)


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


def _stopped(
    standing: Standing, name: str, condition: Condition, *, is_ill: bool = False
) -> Iterator[HealthProblem]:
    """Yield the problem of a state; `is_ill` holds where the rule says nothing."""
    rule = STOP_RULES.get((condition.kind, condition.state))
    if not rule:
        return
    known, severity = standing.settings, rule.severity or (ILL if is_ill else ATTENTION)
    own = (one for begin, one in _BY_ITSELF.items() if condition.reason.startswith(begin))
    usual = (rule.command, rule.message)
    command, message = next(own, usual) if condition.state == "paused" else usual
    is_unclear = condition.kind != JOB and name in known.destinations and name in known.triggers
    named = f"{condition.kind}:{name}" if is_unclear else name
    message = message.format((condition.why or "no reason was given").removesuffix("."))
    command = command.format(named, name=name, template=standing.template_of(name))
    yield HealthProblem(rule.name, severity, name, message, command, condition.since_ms)


def templates(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers with a refused template change, and files that differ between workers."""
    for name, one in standing.triggers.items():
        if one.refused:
            message = f"its file was changed and is not used: {one.refused}"
            mend = f"segrelay template check {standing.template_of(name)}".rstrip()
            yield HealthProblem("template_refused", ILL, name, message, mend)
    for name, file in standing.template_files.items():
        if _is_deployed(standing, file.since_ms):
            versions = "; ".join(
                f"{', '.join(workers)} {f'has {digest}' if digest else 'lacks it'}"
                for digest, workers in file.workers_by_digest.items()
            )
            message = (
                "the file differs between workers, so it depends on chance what is sent:"
                f" {versions}. Copy the same templates folder to all workers"
            )
            yield HealthProblem("template_differs", ILL, name, message, "", file.since_ms)


def orphans(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem for orphaned deliveries, and one for each refused destination."""
    found = standing.totals.orphans
    if found:
        waiting = plural(found.total(), "waiting delivery", "waiting deliveries")
        message = f"the trigger of {waiting} is gone ({counted(largest_first(found))})"
        mend = "; ".join(f"segrelay discard --trigger {name}" for name in found)
        yield HealthProblem("orphaned", ILL, "", message, mend)
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


def receivers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if no receiver runs, or if no event has come for longer than usual.

    One that has never run is not missed, and that no event comes is not told beside its cause.
    """
    found, now_ms = standing.receivers, standing.now_ms
    unseen_ms = now_ms - found.seen_ms if found.seen_ms else 0
    is_down, of_redis = unseen_ms > SEEN_WITHIN_MS, _is_of_redis(standing)
    if is_down and standing.settings.producer.webhook and not of_redis:
        unseen = in_short(unseen_ms / 1_000)
        message = f"no receiver has been seen for {unseen}: it is down, or starved"
        yield HealthProblem("receiver_down", ILL, "", message, "segrelay serve", found.seen_ms)
    for status, (name, meaning, command) in _REFUSED_FOR.items():
        count, is_lost = found.answers.get(status), status == _TOO_LARGE
        is_quiet = now_ms - found.last_ms.get(status, now_ms) >= OVER_MS
        is_over = is_quiet and found.taken_ms > 0 and not found.since_taken.get(status, 0)
        is_of_redis = status == _UNAVAILABLE and (of_redis or standing.redis.full)
        if not count or is_of_redis or (is_over and not is_lost):
            continue
        is_ill = not is_over if is_lost else _takes_none(standing, status)
        message = f"{status} for {plural(count, 'request')} in the last hour: {meaning}"
        if is_ill and status == _UNAUTHORIZED:
            message += ", and none was taken since. Was it changed at one end only?"
        severity = ILL if is_ill else ATTENTION
        yield HealthProblem(name, severity, "", message, command)
    within_ms = standing.settings.operate.events_within_seconds * 1_000
    is_refused = any(_takes_none(standing, one) for one in (_UNAUTHORIZED, _UNAVAILABLE))
    event_ms = max(found.event_ms, found.back_ms) if found.event_ms else now_ms
    if within_ms and now_ms - event_ms > within_ms and not is_down and not is_refused:
        silent = in_short((now_ms - event_ms) / 1_000)
        message = f"the receiver got no event for {silent}: does Lytics' job still run?"
        yield HealthProblem("no_events", ILL, "", message, _CHECK, event_ms)


def _takes_none(standing: Standing, status: int) -> bool:
    """Say whether requests were refused with this status, and none was taken meanwhile."""
    found = standing.receivers
    is_quiet = standing.now_ms - found.taken_ms >= UNTAKEN_MS
    return is_quiet and found.since_taken.get(status, 0) >= FEW_REFUSED


def periodic(standing: Standing) -> Iterator[HealthProblem]:
    """Yield what goes wrong by itself, again and again: readings back, syncs, and watches."""
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
    for name, run in standing.syncs.items():
        show = f"segrelay sync status {name}"
        if run.asks:
            message, mend = f"it waits for a person: {run.asks}", f"segrelay sync confirm {name}"
            yield HealthProblem("sync_waits", ILL, name, message, mend, run.last["since_ms"])
        elif run.failures:
            severity = ILL if run.refused or run.failures >= FAILED_STEPS else ATTENTION
            message = f"failed {times(run.failures)} in a row: {run.problem}"
            yield HealthProblem("sync_fails", severity, name, message, show)
        elif _is_overdue(run, standing.settings.sync[name].every_seconds, standing.now_ms):
            message = (
                "a run has not begun in time, or lasts for too long: see whether workers run and"
                " what their logs say"
            )
            mend, since_ms = f"segrelay sync run {name}; {show}", run.next_ms or run.begun_ms
            yield HealthProblem("sync_overdue", ILL, name, message, mend, since_ms)
    for name, watch in standing.watches.items():
        show = f"segrelay backfill watch {name}"
        every_ms = 1_000 * standing.settings.backfill.watch[name].every_seconds
        if watch.failures:
            severity = ILL if watch.failures >= FAILED_STEPS else ATTENTION
            message = f"failed {times(watch.failures)} in a row: {watch.problem}"
            since_ms = watch.failing_since_ms
            yield HealthProblem("watch_fails", severity, name, message, show, since_ms)
        elif watch.next_ms and standing.now_ms > watch.next_ms + max(OVERDUE_MS, every_ms / 2):
            message = "a look should have begun: look at the workers' logs"
            yield HealthProblem("watch_overdue", ILL, name, message, show, watch.next_ms)
        if watch.refused:
            why = next(iter(watch.refused.values()))
            count = plural(len(watch.refused), "new file")
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
    redis,
    unreadable,
    workers,
    deploys,
    clocks,
    ailing_workers,
    messages_fail,
    stopped,
    templates,
    orphans,
    live_late,
    standing_still,
    outcomes,
    quarantine,
    expiring,
    responses,
    receivers,
    periodic,
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

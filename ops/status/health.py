"""The rules of health, by which `status`, its `--check` and `/readyz` name problems.

Each rule reads the standing and nothing else; `RULES` lists them in the order of the output. They
are about, in this order: Redis, the processes, what stops destinations, triggers and jobs, what is
late or grows, changes that are not finished, and the intake.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from segrelay.ops.status.alert_store import UNHEARD
from segrelay.ops.status.pace import Pace
from segrelay.ops.status.problems import (
    ATTENTION,
    ILL,
    HealthProblem,
    ProblemSeverity,
    counted,
    in_short,
)
from segrelay.ops.status.standing import Condition, Kind, Standing, TriggerStanding, read_standing
from segrelay.ops.status.totals import largest_first
from segrelay.ops.terminal.moments import shown_ms
from segrelay.producer.sync.run import Phase, Run
from segrelay.worker.contract.processes import (
    LIFE_MS,
    RECENT_SAMPLES,
    Sample,
    sample_before,
)
from segrelay.worker.contract.receivers import SEEN_WITHIN_MS
from segrelay.worker.contract.redis.acts import BEGUN
from segrelay.worker.contract.redis.claim import rename_hint
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION, JOB, TRIGGER, field_of
from segrelay.worker.errors import RedisUnavailable

NEARLY_FULL: Final = 0.7
"""Share of `maxmemory` from which Redis is nearly full; producers stop at 0.8."""
_SHOW: Final = "segrelay redis status"
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
        " of each, then say that it was seen"
    )
    mend = "segrelay backfill start …; segrelay redis acknowledge"
    yield HealthProblem("redis_emptied", ILL, "", message, mend, loss.noticed_ms)


def memory(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if Redis is full, or nearly."""
    redis = standing.redis
    if redis.full:
        yield HealthProblem("redis_full", ILL, "", redis.full, _SHOW)
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
            f" {failing.tries:,} times: {failing.reason}. Problems are not announced; correct the"
            " address, restart what was started with it, and send a test"
        )
        test = "segrelay status --notify-test"
        yield HealthProblem(UNHEARD, ATTENTION, "", message, test, failing.since_ms)


FAILED_POSTS: Final = 3
"""Tries in a row that failed until the address of messages is a problem; they take 3 s."""
CLOCK_SECONDS: Final = 5.0
CLOCK_ILL_SECONDS: Final = 60.0
UNSEEN_MS: Final = 30_000
"""Milliseconds after which a process counts as gone; each says every five seconds that it runs."""
FOUND_AGAIN_MS: Final = 10_000
"""Milliseconds within which workers find a Redis that was started, or came back empty."""
FILES_AT_START_MS: Final = 3_000
"""Milliseconds within which a worker that was started has read its templates."""


def workers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if no worker runs, unless one was seen seconds ago."""
    if standing.workers or not standing.redis.takes_writes:
        return
    redis, seen_ms = standing.redis, min(standing.worker_seen_ms, standing.now_ms)
    is_new = redis.uptime_seconds * 1_000 < FOUND_AGAIN_MS or any(
        standing.now_ms - loss.noticed_ms < FOUND_AGAIN_MS for loss in redis.losses
    )
    if is_new or standing.now_ms - seen_ms < LIFE_MS:
        return
    unseen = f"for {(standing.now_ms - seen_ms) // 1_000:,} s" if seen_ms else "yet"
    message = f"no worker has been seen {unseen}, so nothing is delivered"
    mend = "segrelay up, or segrelay worker"
    yield HealthProblem("no_worker", ILL, "", message, mend, seen_ms or None)


def deploys(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if processes differ in configuration or version for longer than a deploy."""
    started, settings = standing.started, standing.settings
    if not started:
        return
    newest = started[0]
    older = [one for one in started if one.config != newest.config]
    since_ms = min(one.begun_ms for one in started if one.config == newest.config)
    if older and _is_deployed(standing, since_ms):
        names = ", ".join(one.name for one in older)
        message = (
            f"these run an older configuration than {newest.name}, which was started last: {names}"
        )
        yield HealthProblem("worker_configuration", ILL, "", message, f"restart {names}", since_ms)
    elif all(one.config != settings.fingerprint for one in started):
        message = (
            f"nothing that runs was started with {settings.source.name} as it is here, so what was"
            " changed in it does not hold yet"
        )
        mend = "segrelay config check, then restart the workers and the receiver"
        yield HealthProblem("worker_configuration", ATTENTION, "", message, mend)
    told = [one for one in started if one.version]
    if len({one.version for one in told}) > 1:
        since_ms = min(one.begun_ms for one in told if one.version == told[0].version)
        if _is_deployed(standing, since_ms):
            names = ", ".join(f"{each.name} {each.version}" for each in told)
            message = f"workers have different versions of segrelay: {names}"
            mend = "restart the older workers"
            yield HealthProblem("worker_version", ATTENTION, "", message, mend, since_ms)


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
        mend = "segrelay worker"
        yield HealthProblem("too_few_workers", ATTENTION, "", message, mend, since_ms)


def companions(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if Flower or the metrics are down; one that has never run is not missed."""
    for kind, seen_ms in standing.companions.items():
        unseen_ms = standing.now_ms - seen_ms
        if unseen_ms > UNSEEN_MS:
            message = f"configured, but not seen for {unseen_ms // 1_000:,} s"
            mend = f"segrelay {kind}"
            yield HealthProblem(f"{kind}_down", ATTENTION, "", message, mend, seen_ms)


def partitions(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem while the number of partitions is changed: all has to stand still."""
    change = standing.partitions
    if not change.target:
        return
    message = (
        f"being changed from {change.count:,} to {change.target:,}; nothing is delivered until the"
        " command that does it has ended"
    )
    mend = f"segrelay redis partitions {change.target}"
    yield HealthProblem("partitions_change", ILL, "", message, mend)


def clocks(standing: Standing) -> Iterator[HealthProblem]:
    """Yield machines whose clock differs from that of Redis.

    Machines may share a name, as containers or clones do: the process that is furthest off counts.
    """
    ahead: dict[str, float] = {}
    for one in standing.processes:
        seconds = float(one.clock_ahead_seconds)
        ahead[one.host] = max(ahead.get(one.host, 0.0), seconds, key=abs)
    for name, receiver in standing.receivers.running.items():
        if standing.now_ms - receiver.seen_ms <= SEEN_WITHIN_MS:
            host, seconds = name.rpartition(":")[0], receiver.clock_ahead_seconds
            ahead[host] = max(ahead.get(host, 0.0), seconds, key=abs)
    ahead.setdefault("this machine", standing.redis.clock_ahead_seconds)
    for host, seconds in ahead.items():
        if abs(seconds) >= CLOCK_SECONDS:
            severity = ILL if abs(seconds) >= CLOCK_ILL_SECONDS else ATTENTION
            word = "ahead of" if seconds > 0 else "behind"
            message = f"its clock is {abs(seconds):,.0f} s {word} that of Redis"
            yield HealthProblem("clock_differs", severity, host, message, "set the clock by NTP")


def messages(standing: Standing) -> Iterator[HealthProblem]:
    """Yield workers that found messages in the broker which are not ours."""
    for one in standing.processes:
        if one.refused_messages:
            message = (
                f"{one.refused_messages:,} messages of the broker were no messages of segrelay;"
                " they were thrown away, and no event was lost: something else writes to the broker"
            )
            mend = "give segrelay a Redis or a user of its own, then restart the worker"
            place = f"{one.host}:{one.pid}"
            yield HealthProblem("messages_refused", ATTENTION, place, message, mend)


class StopRule(NamedTuple):
    """The problem that a state of a destination, trigger or job is.

    Attributes:
        severity: None = ill if it lasts, or if live deliveries are late; else it needs a look.
        command: `{}` is the name of what is stopped, `{template}` its template.
        message: `{}` is the reason.
    """

    name: str
    severity: ProblemSeverity | None
    command: str
    message: str = "{}"


_REFUSED: Final = (
    "correct its template or what the destination knows; segrelay template check {template}"
)
_BROKEN: Final = (
    "it answers with errors or not at all: {}. segrelay tries again by itself and loses nothing; if"
    " it lasts, look at the destination and at the network"
)
_STOPPED: Final = "segrelay config check; a secret in .env counts after a restart of the workers"
PAUSED_BY_ITSELF: Final[Mapping[str, str]] = {
    "access_refused": (
        "put the right credentials into .env, segrelay config check --live, and restart the"
        " workers, which try them at once; segrelay resume {} if the old ones are right after all"
    ),
    "unknown_answer": (
        "segrelay try FILE --trigger T --send shows a whole answer; once it is right again,"
        " segrelay resume {}"
    ),
}
"""The remedy for a destination that has paused itself, by the reason."""
STOP_RULES: Final[Mapping[tuple[Kind, str], StopRule]] = {
    (DESTINATION, "paused"): StopRule("destination_paused", ILL, "segrelay resume {}"),
    (DESTINATION, "broken"): StopRule("destination_broken", ILL, "segrelay status", _BROKEN),
    (TRIGGER, "paused"): StopRule("trigger_paused", ILL, "segrelay resume {}"),
    (TRIGGER, "stopped"): StopRule("trigger_stopped", ILL, _STOPPED),
    (TRIGGER, "refused"): StopRule("trigger_refused", None, _REFUSED),
    (TRIGGER, "waits"): StopRule("trigger_waits", None, "segrelay status"),
    (JOB, "failed"): StopRule("job_failed", ILL, "segrelay backfill status {}"),
    (JOB, "interrupted"): StopRule("job_interrupted", ILL, "segrelay backfill resume {}"),
    (JOB, "paused"): StopRule("job_paused", ATTENTION, "segrelay backfill resume {}"),
    (JOB, "at its canary"): StopRule("job_at_canary", ATTENTION, "segrelay backfill resume {}"),
}
SLOW_FACTOR: Final = 0.5
"""A destination counts as slowed if at most this share of its configured rate is left."""
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
            yield HealthProblem("destination_slowed", ATTENTION, name, message, "segrelay status")


def stopped_triggers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers that are paused or stopped, or of which nothing goes through."""
    for name, one in standing.triggers.items():
        is_ill = one.condition.is_lasting or _is_late(standing, one)
        since_ms = one.oldest_live_ms
        yield from _stopped(standing, name, one.condition, is_ill=is_ill, since_ms=since_ms)


def stopped_jobs(standing: Standing) -> Iterator[HealthProblem]:
    """Yield backfills that failed, were interrupted or paused, or wait at their canary."""
    for name, one in standing.jobs.items():
        yield from _stopped(standing, name, one.condition)


def _stopped(
    standing: Standing,
    name: str,
    condition: Condition,
    *,
    is_ill: bool = False,
    since_ms: int | None = None,
) -> Iterator[HealthProblem]:
    """Yield the problem of a state; `is_ill` and `since_ms` hold where the rule says nothing."""
    rule = STOP_RULES.get((condition.kind, condition.state))
    if not rule:
        return
    message = rule.message.format(condition.why or "no reason was given")
    severity = rule.severity or (ILL if is_ill else ATTENTION)
    begun_ms = condition.since_ms if rule.severity else since_ms
    known, command = standing.settings, rule.command
    if condition.kind == DESTINATION:
        command = PAUSED_BY_ITSELF.get(condition.reason, command)
    is_unclear = condition.kind != JOB and name in known.destinations and name in known.triggers
    named = f"{condition.kind}:{name}" if is_unclear else name
    command = command.format(named, template=_template_of(standing, name))
    yield HealthProblem(rule.name, severity, name, message, command, begun_ms)


def _template_of(standing: Standing, trigger: str) -> str:
    """Return the file of a trigger's template, as `template check` takes it; "" = not known."""
    known = standing.settings.triggers.get(trigger)
    return known.main_template if known else ""


def templates(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers with a refused template change, and templates whose compiled form is off."""
    check = "segrelay template check"
    for name, one in standing.triggers.items():
        if one.refused:
            message = f"its file was changed and is not used: {one.refused}"
            mend = f"{check} {_template_of(standing, name)}".rstrip()
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
            f"the file differs between workers, so it depends on chance what is sent: {versions}",
            "copy the same templates folder to all workers",
            one.since_ms,
        )


def orphans(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem for orphaned deliveries, and one for each destination that seems renamed."""
    found = standing.totals.orphans
    if found:
        message = (
            f"{found.total():,} deliveries wait ({counted(largest_first(found))}), but their"
            " trigger is gone, or means something else now"
        )
        commands = dict.fromkeys(standing.orphans_mended_by.values())
        yield HealthProblem("orphaned", ILL, "", message, "; ".join(commands) or "segrelay status")
    for new, old in standing.former_names.items():
        mend = f"segrelay destination rename {old} {new}"
        yield HealthProblem("destination_renamed", ILL, new, rename_hint(old, new), mend)


def live_late(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers whose live deliveries wait too long, unless another problem says why.

    The time in which they could not go does not count: after a pause, the backlog needs its time.
    """
    if not standing.workers:
        return
    for name, one in standing.triggers.items():
        is_explained = one.condition.stops or standing.is_closed(one.destination, name)
        if is_explained or not _is_late(standing, one):
            continue
        free_ms = _free_since(standing, one.destination, name)
        meant = standing.settings.operate.live_within_seconds
        if standing.now_ms - free_ms <= meant * 1_000:
            continue
        seconds = (standing.now_ms - (one.oldest_live_ms or 0)) / 1_000
        why, mend = _why_slow(standing, one.destination)
        message = (
            f"its oldest live delivery has waited for {seconds:,.0f} s, and at most"
            f" {meant:,.0f} s is meant to be (operate.live_within): {why}"
        )
        since_ms = max(one.oldest_live_ms or 0, free_ms)
        yield HealthProblem("live_late", ILL, name, message, mend, since_ms)


def _is_late(standing: Standing, one: TriggerStanding) -> bool:
    oldest = one.oldest_live_ms
    return (
        oldest is not None
        and standing.now_ms - oldest > standing.settings.operate.live_within_seconds * 1_000
    )


UNSAMPLED_MS: Final = 30_000
"""Milliseconds without a sample after which no worker ran: each second one may take a sample."""


def _free_since(standing: Standing, destination: str, trigger: str) -> int:
    """Return since when a trigger's deliveries could go (ms); 0 = for longer than is remembered."""
    stopped, known = {field_of(TRIGGER, trigger)}, standing.destinations.get(destination)
    if known is None or not known.failing:  # else its breaker is open for other triggers
        stopped.add(field_of(DESTINATION, destination))
    since_ms = newer_ms = standing.now_ms
    for number, sample in enumerate(standing.samples):
        if stopped & set(sample.stopped):
            return newer_ms
        if number < RECENT_SAMPLES and newer_ms - sample.at_ms > UNSAMPLED_MS:
            return newer_ms
        newer_ms = sample.at_ms
    begun_ms = min((one.begun_ms for one in standing.workers), default=since_ms)
    return max(begun_ms, newer_ms if 0 < len(standing.samples) < RECENT_SAMPLES else 0)


USED_UP: Final = 0.9
"""Share of a rate from which it is used up."""
HANGS_MS: Final = 10_000
"""Milliseconds in which workers that do not hang settle some of the deliveries."""


def _why_slow(standing: Standing, destination: str) -> tuple[str, str]:
    """Return why a destination's deliveries are slow, although they may go, and what to do."""
    show = "segrelay status --watch"
    known, samples = standing.destinations.get(destination), standing.samples
    if not samples or known is None:
        return "no worker has reported how far it is", show
    newest = samples[0]
    recent = sample_before(samples, newest.at_ms - RECENT_MS) or newest
    before = sample_before(samples, newest.at_ms - HANGS_MS + 1_000) or newest
    pace = Pace.between(recent, newest, destination)
    settled = [_live_settled(one.counts.get(destination, {})) for one in (newest, before)]
    if known.rate and pace.per_minute >= USED_UP * known.rate:
        why = f"its rate is used up ({pace.per_minute:,.0f} of {known.rate:,.0f} requests a minute)"
        return why, f"ask {destination} for a higher rate, and raise `rate`; {show}"
    if before is not newest and settled[0] == settled[1]:
        seconds = (newest.at_ms - before.at_ms) / 1_000
        why = f"the workers hang: for {seconds:,.0f} s nothing was settled"
        return why, f"look at the workers' logs, and restart them; {show}"
    if pace.requests and pace.mean_seconds >= SLOW_ILL_SECONDS:
        return f"an answer takes {pace.mean_seconds:,.1f} s", f"look at {destination}; {show}"
    return "the workers are too few for what comes", f"segrelay worker, here or elsewhere; {show}"


STEP_MS: Final = 20_000
STEPS: Final = 3
"""Steps of `STEP_MS` in each of which a queue grew if it is falling behind."""
LEAST_GROWN: Final = 100
TOLD_BEFORE_SECONDS: Final = 3_600.0
"""The longest time before `operate.live_within` will be broken at which that is told."""


def falling_behind(standing: Standing) -> Iterator[HealthProblem]:
    """Yield destinations whose live queue grows faster than it drains, before it is late."""
    samples = standing.samples
    if not samples or standing.now_ms - samples[0].at_ms > OLD_SAMPLE_MS or not standing.workers:
        return
    places = [sample_before(samples, samples[0].at_ms - STEP_MS * n) for n in range(STEPS + 1)]
    points = [one for one in places if one is not None]
    span_ms = points[0].at_ms - points[-1].at_ms
    if not 2 * STEP_MS < span_ms < 2 * STEPS * STEP_MS:
        return
    for destination in samples[0].counts:
        own = [one for one in standing.triggers.values() if one.destination == destination]
        waits = [one.counts.get(destination, {}).get("waits", 0) for one in points]
        is_told = standing.is_closed(destination) or any(_is_late(standing, one) for one in own)
        was_closed = any(field_of(DESTINATION, destination) in one.stopped for one in points)
        grows = all(newer > older for newer, older in pairwise(waits))
        if is_told or was_closed or not grows or waits[0] - waits[-1] < LEAST_GROWN:
            continue
        yield from _late_soon(standing, destination, points, waits)


def _late_soon(
    standing: Standing, destination: str, points: Sequence[Sample], waits: Sequence[int]
) -> Iterator[HealthProblem]:
    seconds = (points[0].at_ms - points[-1].at_ms) / 1_000
    done = [_live_settled(one.counts.get(destination, {})) for one in (points[0], points[-1])]
    drains, grows = (done[0] - done[1]) / seconds, (waits[0] - waits[-1]) / seconds
    if drains <= 0:
        return  # it stands still, which is told as such
    # What comes at that moment waits for `live_within`: so long takes what is before it.
    left = (standing.settings.operate.live_within_seconds * drains - waits[0]) / grows
    if left > TOLD_BEFORE_SECONDS:
        return
    at_ms = standing.now_ms + round(max(0.0, left) * 1_000)
    at = shown_ms(at_ms, "seconds")
    why, mend = _why_slow(standing, destination)
    message = (
        f"{waits[0]:,} live deliveries wait; {drains + grows:,.0f} a second come and {drains:,.0f}"
        f" are settled: what comes at {at}, in {in_short(max(0.0, left))}, will wait for longer"
        f" than operate.live_within: {why}"
    )
    yield HealthProblem("falling_behind", ATTENTION, destination, message, mend, points[-1].at_ms)


STANDS_STILL_MS: Final = 120_000
"""Milliseconds without a settled delivery after which due work counts as stalled."""
WINDOW_MS: Final = 900_000
"""Milliseconds over which the growth of dead letters and of the quarantine is measured."""
MANY_DEAD: Final = 10
DEAD_SHARE: Final = 0.2
"""Share of dead deliveries of a trigger that is ill, if they are at least `MANY_DEAD`."""
MANY_SKIPPED: Final = 20
"""The fewest events that an assert skipped, and no other was delivered, that are a problem."""
_OUTCOMES: Final = ("dead|", "delivered|", "skipped|")
_ASSERTED: Final = ("skipped", "asserted")
MANY_QUARANTINED: Final = 10
RECENT_MS: Final = 30_000
"""Milliseconds whose answers are compared with those of the hour before, to find slow ones."""
FEW_REQUESTS: Final = 3
USUAL_REQUESTS: Final = 20
SLOWER_TIMES: Final = 3.0
SLOW_SECONDS: Final = 0.5
SLOW_ILL_SECONDS: Final = 2.0
OLD_SAMPLE_MS: Final = 60_000
_NONE_SETTLED: Final = (
    "wait and workers run, but for two minutes none was settled: look at the workers' logs"
)


def standing_still(standing: Standing) -> Iterator[HealthProblem]:
    """Yield lanes in which nothing is settled although work is due."""
    if not standing.samples or not standing.processes:
        return
    for destination, newest in standing.samples[0].counts.items():
        if standing.is_closed(destination):
            continue
        of_triggers = (one for one in standing.triggers.values() if one.destination == destination)
        if all(one.condition.state == "ok" for one in of_triggers):
            yield from _live_stands_still(standing, destination, newest.get("waits", 0))
            yield from _jobs_stand_still(standing, destination)


def _live_stands_still(
    standing: Standing, destination: str, waiting: int
) -> Iterator[HealthProblem]:
    since = _still_since(standing, destination, "waits", _live_settled)
    if since is not None:
        message = f"{waiting:,} live deliveries {_NONE_SETTLED}"
        yield HealthProblem(
            "live_stands_still", ILL, destination, message, "segrelay status", since
        )


def _jobs_stand_still(standing: Standing, destination: str) -> Iterator[HealthProblem]:
    for job, one in standing.jobs.items():
        since = _still_since(standing, destination, f"waits|{job}", partial(_job_settled, job))
        if since is not None and one.condition.state in {"delivering", "canary under way"}:
            message = f"{one.counts.waiting:,} of its deliveries {_NONE_SETTLED}"
            show = f"segrelay backfill status {job}"
            yield HealthProblem("job_stands_still", ILL, job, message, show, since)


def _live_settled(counts: Mapping[str, int]) -> int:
    jobs = sum(count for name, count in counts.items() if name.startswith("job|"))
    return counts.get("settled", 0) - jobs


def _job_settled(job: str, counts: Mapping[str, int]) -> int:
    return counts.get(f"job|{job}", 0)


def _still_since(
    standing: Standing, destination: str, waits: str, settled: Callable[[Mapping[str, int]], int]
) -> int | None:
    """Return the time since which nothing was settled; None = the work has not stalled."""
    since = None
    first = settled(standing.samples[0].counts[destination])
    of_triggers = (n for n, one in standing.triggers.items() if one.destination == destination)
    stops = {field_of(DESTINATION, destination), *(field_of(TRIGGER, name) for name in of_triggers)}
    for sample in standing.samples:
        counts = sample.counts.get(destination, {})
        if not counts.get(waits) or settled(counts) != first or stops & set(sample.stopped):
            break
        since = sample.at_ms
    return since if since is not None and standing.now_ms - since >= STANDS_STILL_MS else None


def slow_answers(standing: Standing) -> Iterator[HealthProblem]:
    """Yield destinations whose answers take much longer than usual, or long if few are known."""
    if not standing.samples or standing.now_ms - standing.samples[0].at_ms > OLD_SAMPLE_MS:
        return
    newest = standing.samples[0]
    recent = sample_before(standing.samples, newest.at_ms - RECENT_MS) or newest
    for name in newest.counts:
        now = Pace.between(recent, newest, name)
        if standing.is_closed(name) or now.requests < FEW_REQUESTS:
            continue
        usual_seconds = _usual_seconds(standing.samples, recent, name)
        least = SLOW_ILL_SECONDS
        if usual_seconds is not None:
            least = max(SLOW_SECONDS, SLOWER_TIMES * usual_seconds)
        if now.mean_seconds < least:
            continue
        since_ms = recent.at_ms
        for newer, older in pairwise(standing.samples):
            between = Pace.between(older, newer, name)
            if older.at_ms < since_ms:
                if between.requests and between.mean_seconds < least:
                    break
                since_ms = older.at_ms
        usual = f"; {usual_seconds:,.2f} s is usual" if usual_seconds is not None else ""
        message = (
            f"an answer takes {now.mean_seconds:,.1f} s now{usual}. Deliveries wait for longer and"
            " none is lost; look at the destination's status page and at the network"
        )
        severity = ILL if now.mean_seconds >= SLOW_ILL_SECONDS else ATTENTION
        yield HealthProblem("answers_slow", severity, name, message, "segrelay status", since_ms)


def _usual_seconds(samples: Sequence[Sample], recent: Sample, name: str) -> float | None:
    """Return how long answers took before; None = too few are known.

    The oldest samples count for themselves, too: else what lasts for long would become usual.
    """
    paces = (Pace.between(samples[-1], one, name) for one in (recent, *samples[RECENT_SAMPLES:]))
    known = [one.mean_seconds for one in paces if one.requests >= USUAL_REQUESTS]
    return min(known, default=None)


def outcomes(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers with recent dead letters, or of which an `assert` skipped all lately."""
    before = sample_before(standing.samples, standing.now_ms - WINDOW_MS)
    if before is None:
        return
    grown = _outcomes_of(standing.samples[0])
    grown.subtract(_outcomes_of(before))
    by_trigger: dict[str, dict[tuple[str, str], int]] = {}
    for name, count in grown.items():
        kind, trigger, *reason = name.split("|")
        if count > 0:
            by_trigger.setdefault(trigger, {})[kind, "".join(reason)] = count
    for trigger, counts in by_trigger.items():
        dead = {reason: count for (kind, reason), count in counts.items() if kind == "dead"}
        skipped, delivered = counts.get(_ASSERTED, 0), counts.get(("delivered", ""), 0)
        if dead:
            yield _dying(standing, before, trigger, dead, delivered)
        elif skipped >= MANY_SKIPPED and not delivered:
            message = (
                f"an assert of its template skipped all of the {skipped:,} events that were due in"
                " the last quarter of an hour: is it right, and do they have the fields that it"
                " asks for?"
            )
            mend = f"segrelay template check {_template_of(standing, trigger)}".rstrip()
            since_ms = _grows_since(
                standing.samples, before, partial(_sum_of, f"skipped|{trigger}|")
            )
            yield HealthProblem("assert_skips_all", ATTENTION, trigger, message, mend, since_ms)


def _outcomes_of(sample: Sample) -> Counter[str]:
    """Return the outcomes by trigger and reason, over all destinations."""
    found: Counter[str] = Counter()
    for counts in sample.counts.values():
        found.update({n: c for n, c in counts.items() if n.startswith(_OUTCOMES)})
    return found


def _dying(
    standing: Standing, before: Sample, trigger: str, reasons: Mapping[str, int], delivered: int
) -> HealthProblem:
    dead = sum(reasons.values())
    is_ill = dead >= MANY_DEAD and dead / (dead + delivered) >= DEAD_SHARE
    listed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
    message = f"{dead:,} of its last {dead + delivered:,} deliveries died: {listed}"
    severity = ILL if is_ill else ATTENTION
    since_ms = _grows_since(standing.samples, before, partial(_sum_of, f"dead|{trigger}|"))
    mend = "segrelay dlq causes"
    return HealthProblem("dead_letters_grow", severity, trigger, message, mend, since_ms)


def _sum_of(prefix: str, sample: Sample) -> int:
    return sum(count for name, count in _outcomes_of(sample).items() if name.startswith(prefix))


def _grows_since(samples: Sequence[Sample], before: Sample, count: Callable[[Sample], int]) -> int:
    """Return the time of the last sample whose count was that at the window's edge (ms)."""
    edge = count(before)
    within = [one for one in samples if one.at_ms >= before.at_ms and count(one) == edge]
    return within[0].at_ms


def quarantine(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if events could not be placed lately."""
    before = sample_before(standing.samples, standing.now_ms - WINDOW_MS)
    grown = standing.quarantined - before.quarantined if before else 0
    if before and grown > 0:
        severity = ILL if grown >= MANY_QUARANTINED else ATTENTION
        message = f"{grown:,} events came that could not be placed"
        mend = "segrelay quarantine list"
        since_ms = _grows_since(standing.samples, before, lambda sample: sample.quarantined)
        yield HealthProblem("quarantine_grows", severity, "", message, mend, since_ms)


LACKING: Final = 2
"""People in a row who lack an attribute that was sent, until that is a problem."""
UNFINISHED_MS: Final = 60_000
"""Milliseconds after which an act that was begun is named; an ordinary one has ended by then."""
NOT_RENAMED_MS: Final = 86_400_000
"""Milliseconds for which it stays a problem that a person could not be renamed."""


def stopped_renamings(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if a command that renames people was stopped before its end."""
    found = standing.stopped_renamings
    if not found:
        return
    since_ms = min(found.values())
    first = min(found, key=lambda digest: (found[digest], digest))
    message = (
        f"a command that gives people another identity was stopped: {len(found):,} are on their"
        f" way, and nothing is delivered to them ({first} is one); give the same command again"
    )
    mend = "segrelay person rename OLD NEW, or --file CSV"
    yield HealthProblem("rename_stopped", ATTENTION, "", message, mend, since_ms)


def unfinished_acts(standing: Standing) -> Iterator[HealthProblem]:
    """Yield the renamings of audiences that were begun and not finished."""
    for act in standing.unfinished:
        if act.outcome == BEGUN and standing.now_ms - act.at_ms < UNFINISHED_MS:
            continue
        new = act.arguments["to"]
        message = (
            f"its renaming to '{new}' was begun by {act.by} and is not finished, so that a part of"
            " it stands under either name; unless somebody is at it now, give the command again"
        )
        mend = f"segrelay {act.what} {act.subject} {new}"
        yield HealthProblem("rename_unfinished", ATTENTION, act.subject, message, mend, act.at_ms)


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


def not_renamed(standing: Standing) -> Iterator[HealthProblem]:
    """Yield destinations where people could not be renamed in the last day."""
    for name, one in standing.renamed_people.items():
        since_ms = one.refused_ms
        if standing.now_ms - since_ms < NOT_RENAMED_MS:
            message = (
                f"{one.refused:,} people came with an identity that they could not get: another"
                " person has it, or their stable id changes too often; each goes on as two people"
            )
            mend = "segrelay audit, and segrelay person rename OLD NEW"
            yield HealthProblem("not_renamed", ATTENTION, name, message, mend, since_ms)


def read_backs(standing: Standing) -> Iterator[HealthProblem]:
    """Yield destinations where people who were read back lack attributes that were sent."""
    for name, one in standing.read_backs.items():
        lacking = {what: each for what, each in one.missing.items() if each.people >= LACKING}
        if lacking:
            listed = ", ".join(
                f"{what.removeprefix('c_')} (of {each.trigger})" if what else "the whole person"
                for what, each in sorted(lacking.items())
            )
            message = (
                f"it took deliveries and does not hold what they sent: {listed}. Insider drops what"
                " its panel does not define: define it there, or leave it out of the template"
            )
            since_ms = min(each.since_ms for each in lacking.values())
            mend = "segrelay config check --live"
            yield HealthProblem("attributes_dropped", ILL, name, message, mend, since_ms)
        if one.failures >= FAILED_STEPS:
            message = f"nobody can be read back from it: {one.problem}"
            mend = "segrelay config check --live"
            yield HealthProblem("read_back_fails", ATTENTION, name, message, mend)


def renaming_waits(standing: Standing) -> Iterator[HealthProblem]:
    """Yield destinations where nobody is renamed although somebody should be."""
    for name, one in standing.renamed_people.items():
        if one.waiting and one.problem:
            message = f"{one.waiting:,} people wait to be renamed: {one.problem}"
            mend = "segrelay config check --live"
            yield HealthProblem("renaming_waits", ATTENTION, name, message, mend)


LAG_MS: Final = 1_000
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
    """Yield a problem if no receiver runs, or one gets too little of a processor."""
    found = standing.receivers
    if not standing.settings.producer.webhook or not found.seen_ms:
        return
    unseen_ms = standing.now_ms - found.seen_ms
    if unseen_ms > SEEN_WITHIN_MS:
        message = f"no receiver has been seen for {unseen_ms // 1_000:,} s: it is down, or starved"
        yield HealthProblem("receiver_down", ILL, "", message, "segrelay serve", found.seen_ms)
        return
    for name, one in found.running.items():
        if one.lag_ms >= LAG_MS:
            message = (
                f"it is starved: its timers are {one.lag_ms:,} ms late; give it more of a processor"
            )
            yield HealthProblem("receiver_starved", ILL, name, message, _CHECK)


def refusals(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem for requests that receivers refused in the last hour, until it is solved."""
    found = standing.receivers
    count = found.answers.get(_UNAUTHORIZED)
    if count and not _is_over(standing, _UNAUTHORIZED):
        is_ill = _takes_none(standing, _UNAUTHORIZED)
        message = (
            f"401 for {count:,} requests in the last hour: their secret is missing or wrong"
            + (", and none was taken since. Was it changed at one end only?" if is_ill else "")
        )
        severity = ILL if is_ill else ATTENTION
        since_ms = found.first_ms.get(_UNAUTHORIZED)
        yield HealthProblem("receiver_unauthorized", severity, "", message, _CHECK, since_ms)
    count = found.answers.get(_TOO_LARGE)
    if count and not found.is_limit_raised:
        severity = ATTENTION if _is_over(standing, _TOO_LARGE) else ILL
        message = (
            f"413 for {count:,} requests in the last hour: Lytics dropped their events for good"
        )
        mend = "raise producer.webhook.max_bytes, or make Lytics' batches smaller"
        yield HealthProblem("receiver_too_large", severity, "", message, mend)
    count = found.answers.get(_UNAVAILABLE)
    if count and not _is_over(standing, _UNAVAILABLE):
        is_ill = _takes_none(standing, _UNAVAILABLE)
        message = f"503 for {count:,} requests in the last hour: Redis could not store them"
        severity = ILL if is_ill else ATTENTION
        since_ms = found.first_ms.get(_UNAVAILABLE)
        yield HealthProblem("receiver_unavailable", severity, "", message, _SHOW, since_ms)


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
        seconds = (standing.now_ms - event_ms) / 1_000
        message = f"the receiver got no event for {seconds:,.0f} s: does Lytics' job still run?"
        yield HealthProblem("no_events", ILL, "", message, _CHECK, event_ms)


def syncs(standing: Standing) -> Iterator[HealthProblem]:
    """Yield syncs that fail, wait for a person, or are overdue."""
    for name, run in standing.syncs.items():
        show = f"segrelay sync status {name}"
        if run.phase is Phase.CONFIRM:
            message = f"it waits for a person: {run.doubt}"
            mend = f"segrelay sync confirm {name}"
            yield HealthProblem("sync_waits", ILL, name, message, mend)
        elif run.failures:
            is_ill = run.refused or run.failures >= FAILED_STEPS
            severity = ILL if is_ill else ATTENTION
            message = f"failed {run.failures:,} times in a row: {run.problem}"
            yield HealthProblem("sync_fails", severity, name, message, show)
        elif _is_overdue(run, standing.settings.sync[name].every_seconds, standing.now_ms):
            message = "a run should have begun, or lasts for too long: look at the workers' logs"
            yield HealthProblem(
                "sync_overdue", ILL, name, message, show, run.next_ms or run.begun_ms
            )


def _is_overdue(run: Run, every_seconds: float, now_ms: int) -> bool:
    every_ms = every_seconds * 1_000
    if run.has_ended:
        return bool(run.next_ms) and now_ms > run.next_ms + max(OVERDUE_MS, every_ms / 2)
    return bool(run.begun_ms) and now_ms > run.begun_ms + max(LONGEST_RUN_MS, 2 * every_ms)


UNREACHABLE: Final = "redis_unreachable"
_JUDGED_AGAIN_SECONDS: Final = 5.0

RULES: Final[tuple[Callable[[Standing], Iterable[HealthProblem]], ...]] = (
    emptied,
    memory,
    durability,
    workers,
    deploys,
    too_few_workers,
    companions,
    partitions,
    clocks,
    messages,
    messages_fail,
    stopped_destinations,
    stopped_triggers,
    stopped_jobs,
    templates,
    template_files,
    orphans,
    live_late,
    falling_behind,
    standing_still,
    slow_answers,
    outcomes,
    quarantine,
    stopped_renamings,
    unfinished_acts,
    aborted_jobs,
    not_renamed,
    renaming_waits,
    read_backs,
    receivers,
    refusals,
    silence,
    syncs,
)


def problems_of(standing: Standing) -> list[HealthProblem]:
    """Return all problems, the ill ones first."""
    found = [problem for rule in RULES for problem in rule(standing)]
    return sorted(found, key=lambda problem: problem.severity != ILL)


def read_problems(client: Redis, settings: Settings) -> list[HealthProblem]:
    """Read the standing and return its problems, the ill ones first."""
    return problems_of(read_standing(client, settings))


@dataclass(slots=True)
class ProblemNames:
    """Names the ill problems for `/readyz`, judged anew every few seconds at most.

    Args:
        client: A connection of its own, with short timeouts.
    """

    client: Redis
    settings: Settings
    _names: Sequence[str] = ()
    _next_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> Sequence[str]:
        """Return the names of the ill problems."""
        with self._lock:
            if time.monotonic() >= self._next_at:
                self._names = self._judged()
                self._next_at = time.monotonic() + _JUDGED_AGAIN_SECONDS
            return self._names

    def _judged(self) -> Sequence[str]:
        try:
            found = read_problems(self.client, self.settings)
        except RedisUnavailable:
            return (UNREACHABLE,)
        return sorted({problem.name for problem in found if problem.severity == ILL})

"""Rules about the receiver, syncs and backfills, which bring events in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ops.status.health.facts import Facts, SyncFacts
from ops.status.health.problem import ATTENTION, ILL, HealthProblem, reason_of
from ops.status.health.rules.deliveries import since_of
from producer.sync.run import Phase
from worker.contract.processes.receivers import SEEN_WITHIN_MS

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


def receivers(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if no receiver runs, or one gets too little of a processor."""
    found = facts.receivers
    if not facts.has_webhook or not found.seen_ms:
        return
    unseen_ms = facts.now_ms - found.seen_ms
    if unseen_ms > SEEN_WITHIN_MS:
        message = f"no receiver has been seen for {unseen_ms // 1_000:,} s: it is down, or starved"
        yield HealthProblem("receiver_down", ILL, "", message, "segrelay serve", found.seen_ms)
        return
    for name, lag_ms in found.lag_ms.items():
        if lag_ms >= LAG_MS:
            message = (
                f"it is starved: its timers are {lag_ms:,} ms late; give it more of a processor"
            )
            yield HealthProblem("receiver_starved", ILL, name, message, _CHECK)


def refusals(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem for requests that receivers refused in the last hour, until it is solved."""
    found = facts.receivers
    count = found.answers.get(_UNAUTHORIZED)
    if count and not _is_over(facts, _UNAUTHORIZED):
        is_ill = _takes_none(facts, _UNAUTHORIZED)
        message = (
            f"401 for {count:,} requests in the last hour: their secret is missing or wrong"
            + (", and none was taken since. Was it changed at one end only?" if is_ill else "")
        )
        severity = ILL if is_ill else ATTENTION
        yield HealthProblem("receiver_unauthorized", severity, "", message, _CHECK)
    count = found.answers.get(_TOO_LARGE)
    if count and not found.is_limit_raised:
        severity = ATTENTION if _is_over(facts, _TOO_LARGE) else ILL
        message = (
            f"413 for {count:,} requests in the last hour: Lytics dropped their events for good"
        )
        mend = "raise producer.webhook.max_bytes, or make Lytics' batches smaller"
        yield HealthProblem("receiver_too_large", severity, "", message, mend)
    count = found.answers.get(_UNAVAILABLE)
    if count and not _is_over(facts, _UNAVAILABLE):
        is_ill = _takes_none(facts, _UNAVAILABLE)
        message = f"503 for {count:,} requests in the last hour: Redis could not store them"
        severity = ILL if is_ill else ATTENTION
        yield HealthProblem("receiver_unavailable", severity, "", message, "segrelay redis status")


def _takes_none(facts: Facts, status: int) -> bool:
    """Say whether requests were refused with this status, and none was taken meanwhile."""
    found = facts.receivers
    is_quiet = facts.now_ms - found.taken_ms >= UNTAKEN_MS
    return is_quiet and found.since_taken.get(status, 0) >= FEW_REFUSED


def _is_over(facts: Facts, status: int) -> bool:
    """Say whether requests were taken since the last one was refused with this status."""
    found = facts.receivers
    is_quiet = facts.now_ms - found.last_ms.get(status, facts.now_ms) >= OVER_MS
    return is_quiet and found.taken_ms > 0 and not found.since_taken.get(status, 0)


def silence(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if no event has come for longer than usual."""
    event_ms, within = facts.receivers.event_ms, facts.events_within_seconds
    if within and event_ms and facts.now_ms - event_ms > within * 1_000:
        seconds = (facts.now_ms - event_ms) / 1_000
        message = f"the receiver got no event for {seconds:,.0f} s: does Lytics' job still run?"
        yield HealthProblem("no_events", ILL, "", message, _CHECK, event_ms)


def syncs(facts: Facts) -> Iterator[HealthProblem]:
    """Yield syncs that fail, wait for a person, or are overdue."""
    for name, one in facts.syncs.items():
        run, show = one.run, f"segrelay sync status {name}"
        if run.phase is Phase.CONFIRM:
            message = f"it waits for a person: {run.doubt}"
            mend = f"segrelay sync confirm {name}"
            yield HealthProblem("sync_waits", ILL, name, message, mend)
        elif run.failures:
            is_ill = run.refused or run.failures >= FAILED_STEPS
            severity = ILL if is_ill else ATTENTION
            message = f"failed {run.failures:,} times in a row: {run.problem}"
            yield HealthProblem("sync_fails", severity, name, message, show)
        elif _is_overdue(one, facts.now_ms):
            message = "a run should have begun, or lasts for too long: look at the workers' logs"
            yield HealthProblem(
                "sync_overdue", ILL, name, message, show, run.next_ms or run.begun_ms
            )


def _is_overdue(one: SyncFacts, now_ms: int) -> bool:
    run, every_ms = one.run, one.every_seconds * 1_000
    if run.has_ended:
        return bool(run.next_ms) and now_ms > run.next_ms + max(OVERDUE_MS, every_ms / 2)
    return bool(run.begun_ms) and now_ms > run.begun_ms + max(LONGEST_RUN_MS, 2 * every_ms)


def jobs(facts: Facts) -> Iterator[HealthProblem]:
    """Yield backfills that failed, were interrupted or paused, or wait at their canary."""
    for name, one in facts.status["jobs"].items():
        state, reason = one["state"], reason_of(one) or "no reason was given"
        mend = f"segrelay backfill resume {name}"
        if state == "failed":
            show = f"segrelay backfill status {name}"
            yield HealthProblem("job_failed", ILL, name, reason, show)
        elif state == "interrupted":
            yield HealthProblem("job_interrupted", ILL, name, reason, mend)
        elif state == "paused":
            yield HealthProblem("job_paused", ATTENTION, name, reason, mend, since_of(one))
        elif state == "at its canary":
            yield HealthProblem("job_at_canary", ATTENTION, name, reason, mend)

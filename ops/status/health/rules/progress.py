"""Rules that compare the counts with earlier samples, to find what stalls or grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from ops.status.health.facts import Facts
from ops.status.health.problem import ATTENTION, ILL, HealthProblem
from ops.status.meter import Pace
from worker.contract.processes.progress import sample_before
from worker.contract.redis.acts import BEGUN

STANDS_STILL_MS: Final = 120_000
"""Milliseconds without a settled delivery after which due work counts as stalled."""
WINDOW_MS: Final = 900_000
"""Milliseconds over which the growth of dead letters and of the quarantine is measured."""
MANY_DEAD: Final = 10
DEAD_SHARE: Final = 0.2
"""Share of dead deliveries of a trigger that is ill, if they are at least `MANY_DEAD`."""
MANY_QUARANTINED: Final = 10
RECENT_MS: Final = 30_000
"""Milliseconds whose answers are compared with those of the hour before, to find slow ones."""
FEW_REQUESTS: Final = 3
USUAL_REQUESTS: Final = 20
SLOWER_TIMES: Final = 3.0
SLOW_SECONDS: Final = 0.5
SLOW_ILL_SECONDS: Final = 2.0
OLD_SAMPLE_MS: Final = 60_000
UNFINISHED_MS: Final = 60_000
"""Milliseconds after which an act that was begun is named; an ordinary one has ended by then."""
NOT_RENAMED_MS: Final = 86_400_000
"""Milliseconds for which it stays a problem that a person could not be renamed."""
_NONE_SETTLED: Final = (
    "wait and workers run, but for two minutes none was settled: look at the workers' logs"
)
_CLOSED: Final = frozenset({"paused", "broken", "renamed", "orphaned"})


def standing_still(facts: Facts) -> Iterator[HealthProblem]:
    """Yield lanes in which nothing is settled although work is due."""
    status = facts.status
    if not facts.samples or not status["processes"]:
        return
    for destination, newest in facts.samples[0].counts.items():
        known = status["destinations"].get(destination)
        if known is None or known["state"] in _CLOSED:
            continue
        of_triggers = status["triggers"].values()
        if all(one["state"] == "ok" for one in of_triggers if one["destination"] == destination):
            yield from _live_stands_still(facts, destination, newest.get("waits", 0))
            yield from _jobs_stand_still(facts, destination)


def _live_stands_still(facts: Facts, destination: str, waiting: int) -> Iterator[HealthProblem]:
    since = _still_since(facts, destination, "waits", _live_settled)
    if since is not None:
        message = f"{waiting:,} live deliveries {_NONE_SETTLED}"
        yield HealthProblem(
            "live_stands_still", ILL, destination, message, "segrelay status", since
        )


def _jobs_stand_still(facts: Facts, destination: str) -> Iterator[HealthProblem]:
    for job, one in facts.status["jobs"].items():
        since = _still_since(facts, destination, f"waits|{job}", partial(_job_settled, job))
        if since is not None and one["state"] in {"delivering", "canary under way"}:
            message = f"{one['waiting']:,} of its deliveries {_NONE_SETTLED}"
            show = f"segrelay backfill status {job}"
            yield HealthProblem("job_stands_still", ILL, job, message, show, since)


def _live_settled(counts: Mapping[str, int]) -> int:
    jobs = sum(count for name, count in counts.items() if name.startswith("job|"))
    return counts.get("settled", 0) - jobs


def _job_settled(job: str, counts: Mapping[str, int]) -> int:
    return counts.get(f"job|{job}", 0)


def _still_since(
    facts: Facts, destination: str, waits: str, settled: Callable[[Mapping[str, int]], int]
) -> int | None:
    """Return the time since which nothing was settled; None = the work has not stalled."""
    since = None
    first = settled(facts.samples[0].counts[destination])
    for sample in facts.samples:
        counts = sample.counts.get(destination, {})
        if not counts.get(waits) or settled(counts) != first:
            break
        since = sample.at_ms
    return since if since is not None and facts.now_ms - since >= STANDS_STILL_MS else None


def slow_answers(facts: Facts) -> Iterator[HealthProblem]:
    """Yield destinations whose answers take much longer than usual, or long if few are known."""
    if not facts.samples or facts.now_ms - facts.samples[0].at_ms > OLD_SAMPLE_MS:
        return
    newest = facts.samples[0]
    recent = sample_before(facts.samples, newest.at_ms - RECENT_MS) or newest
    for name in newest.counts:
        known = facts.status["destinations"].get(name)
        now = Pace.between(recent, newest, name)
        if known is None or known["state"] in _CLOSED or now.requests < FEW_REQUESTS:
            continue
        before = Pace.between(facts.samples[-1], recent, name)
        is_known = before.requests >= USUAL_REQUESTS
        least = SLOW_SECONDS if is_known else SLOW_ILL_SECONDS
        if now.mean_seconds < max(least, SLOWER_TIMES * before.mean_seconds if is_known else 0.0):
            continue
        usual = f"; {before.mean_seconds:,.2f} s is usual" if is_known else ""
        message = (
            f"an answer takes {now.mean_seconds:,.1f} s now{usual}. Deliveries wait for longer and"
            " none is lost; look at the destination's status page and at the network"
        )
        severity = ILL if now.mean_seconds >= SLOW_ILL_SECONDS else ATTENTION
        yield HealthProblem(
            "answers_slow", severity, name, message, "segrelay status", recent.at_ms
        )


def dead_letters(facts: Facts) -> Iterator[HealthProblem]:
    """Yield triggers with recent dead letters, with the reasons."""
    before = sample_before(facts.samples, facts.now_ms - WINDOW_MS)
    if before is None:
        return
    then: Counter[str] = Counter()
    now: Counter[str] = Counter()
    for sample, total in ((before, then), (facts.samples[0], now)):
        for counts in sample.counts.values():
            total.update({n: c for n, c in counts.items() if n.startswith(("dead|", "delivered|"))})
    grown: dict[str, dict[str, int]] = {}
    for name, count in now.items():
        kind, trigger, *reason = name.split("|")
        if kind == "dead" and count > then[name]:
            grown.setdefault(trigger, {})[reason[0]] = count - then[name]
    for trigger, reasons in grown.items():
        dead = sum(reasons.values())
        delivered = max(0, now[f"delivered|{trigger}"] - then[f"delivered|{trigger}"])
        share = dead / (dead + delivered)
        is_ill = dead >= MANY_DEAD and share >= DEAD_SHARE
        listed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
        message = f"{dead:,} of its last {dead + delivered:,} deliveries died: {listed}"
        severity = ILL if is_ill else ATTENTION
        mend = "segrelay dlq causes"
        yield HealthProblem("dead_letters_grow", severity, trigger, message, mend, before.at_ms)


def quarantine(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if events could not be placed lately."""
    before = sample_before(facts.samples, facts.now_ms - WINDOW_MS)
    grown = facts.status["quarantined"] - before.quarantined if before else 0
    if before and grown > 0:
        severity = ILL if grown >= MANY_QUARANTINED else ATTENTION
        message = f"{grown:,} events came that could not be placed"
        mend = "segrelay quarantine list"
        yield HealthProblem("quarantine_grows", severity, "", message, mend, before.at_ms)


def stopped_renamings(facts: Facts) -> Iterator[HealthProblem]:
    """Yield a problem if a command that renames people was stopped before its end."""
    found = facts.stopped_renamings
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


def unfinished_acts(facts: Facts) -> Iterator[HealthProblem]:
    """Yield the renamings of audiences and destinations that were begun and not finished."""
    for act in facts.unfinished:
        if act.outcome == BEGUN and facts.now_ms - act.at_ms < UNFINISHED_MS:
            continue
        new = act.arguments["to"]
        message = (
            f"its renaming to '{new}' was begun by {act.by} and is not finished, so that a part of"
            " it stands under either name; unless somebody is at it now, give the command again"
        )
        mend = f"segrelay {act.what} {act.subject} {new}"
        yield HealthProblem("rename_unfinished", ATTENTION, act.subject, message, mend, act.at_ms)


def aborted_jobs(facts: Facts) -> Iterator[HealthProblem]:
    """Yield aborted jobs of which deliveries still wait: the command broke off in between."""
    for job, one in facts.status["jobs"].items():
        if one["state"] == "aborted" and one["waiting"]:
            message = (
                f"it was aborted, and {one['waiting']:,} of its deliveries were not discarded; give"
                " the command again"
            )
            mend = f"segrelay backfill abort {job}"
            yield HealthProblem("abort_unfinished", ATTENTION, job, message, mend)


def not_renamed(facts: Facts) -> Iterator[HealthProblem]:
    """Yield destinations where people could not be renamed in the last day."""
    for name, one in facts.status["renamed_people"].items():
        since_ms = one["refused_ms"]
        if facts.now_ms - since_ms < NOT_RENAMED_MS:
            message = (
                f"{one['refused']:,} people came with an identity that they could not get: another"
                " person has it, or their stable id changes too often; each goes on as two people"
            )
            mend = "segrelay audit, and segrelay person rename OLD NEW"
            yield HealthProblem("not_renamed", ATTENTION, name, message, mend, since_ms)


def renaming_waits(facts: Facts) -> Iterator[HealthProblem]:
    """Yield destinations where nobody is renamed although somebody should be."""
    for name, one in facts.status["renamed_people"].items():
        if one["waiting"] and one["problem"]:
            message = f"{one['waiting']:,} people wait to be renamed: {one['problem']}"
            mend = "segrelay config check --live"
            yield HealthProblem("renaming_waits", ATTENTION, name, message, mend)

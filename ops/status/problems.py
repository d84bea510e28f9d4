"""A problem of health, and the rules of health about what is late, stalled or growing.

The rules reckon from the samples of the last hour, as does the pace of deliveries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from segrelay.ops.state.background import LETTERS, RECORDS
from segrelay.ops.status.standing import Standing, TriggerStanding
from segrelay.ops.terminal.moments import shown_ms
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.processes import RECENT_SAMPLES, Sample, sample_before
from segrelay.worker.contract.triggers import DESTINATION, TRIGGER, field_of

ProblemSeverity = Literal["ill", "attention"]
ILL: Final[ProblemSeverity] = "ill"
"""The severity of a problem that customers notice, or will soon."""
ATTENTION: Final[ProblemSeverity] = "attention"
"""The severity of a problem that needs a look this week."""


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """A problem that an operator has to see.

    Args:
        name: The stable name, the same in every output; docs/operating.md lists all names.
        subject: The destination, trigger, job … that has it; "" = all of segrelay.
        message: The cause, and what to do that no command does, in words.
        command: The command that shows or mends the problem, to be copied as it is. Several are
            separated by `; `; "" = no command helps.
        since_ms: The beginning, by Redis' clock; None = not known.
    """

    name: str
    severity: ProblemSeverity
    subject: str
    message: str
    command: str
    since_ms: int | None = None

    def __post_init__(self) -> None:
        """Remove the full stop from the message, because texts go on behind it."""
        object.__setattr__(self, "message", self.message.removesuffix("."))

    @property
    def title(self) -> str:
        return f"{self.name} {self.subject}" if self.subject else self.name

    @property
    def since(self) -> str | None:
        return shown_ms(self.since_ms, "seconds") if self.since_ms else None

    @property
    def commands(self) -> list[str]:
        return self.command.split("; ") if self.command else []

    @property
    def lines(self) -> list[str]:
        """Return the problem as lines of text: the cause, then the commands."""
        since = f" since {self.since}" if self.since else ""
        first = f"{self.severity}: {self.title}{since}: {self.message}"
        return [first, *(f"→ {one}" for one in self.commands)]

    def document(self) -> dict[str, Any]:
        """Return the problem as `status --json` prints it."""
        shown = ("name", "severity", "subject", "since", "message", "command")
        return {name: getattr(self, name) for name in shown}


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by name as text, such as `vip 1,200, new 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def in_short(seconds: float) -> str:
    """Return a duration as a person says it, with one unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


_MS_A_MINUTE: Final = 60_000


def pace_between(older: Sample, newer: Sample, destination: str) -> tuple[int, float, float]:
    """Return a destination's requests between two samples; 0 where a count has fallen.

    Returns:
        How many there were, how many a minute, and the mean time of one in seconds.
    """
    then, now = (one.counts.get(destination, {}) for one in (older, newer))
    requests, asked_ms = (
        max(0, now.get(name, 0) - then.get(name, 0)) for name in ("requests", "asked|ms")
    )
    span_ms = newer.at_ms - older.at_ms
    per_minute = requests * _MS_A_MINUTE / span_ms if span_ms > 0 else 0.0
    return requests, per_minute, asked_ms / requests / 1_000 if requests else 0.0


_OLD_MS: Final = 60_000
"""The age from which on a sample tells nothing of the present pace: no worker has written since."""
_MEASURED: Final = 6
"""Samples by which the growth of outcomes is measured: a minute, if workers run."""


def settled_of(counts: Mapping[str, int], part: str = "settled") -> int:
    """Return the settled deliveries in a sample of a destination.

    Args:
        counts: The counts of a sample, by the names that `progress.lua` gives them.
        part: The deliveries that count: all (`settled`), those of no job (`live`), of all jobs
            (`jobs`), or of one (`job|NAME`).
    """
    jobs = sum(count for name, count in counts.items() if name.startswith("job|"))
    parts = {"live": counts.get("settled", 0) - jobs, "jobs": jobs}
    return parts.get(part, counts.get(part, 0))


def per_second(
    samples: Sequence[Sample], part: str = "settled", destination: str = ""
) -> float | None:
    """Return how many deliveries were settled a second lately; None = not known.

    Args:
        samples: The samples, the newest first.
        part: The part that is counted; see `settled_of`.
        destination: The only destination that counts; "" = all.
    """
    if len(samples) < 2:  # noqa: PLR2004 - a rate is between two
        return None
    newer, older = samples[0], samples[min(_MEASURED, len(samples) - 1)]
    now, then = (
        sum(
            settled_of(counts, part)
            for name, counts in one.counts.items()
            if destination in ("", name)
        )
        for one in (newer, older)
    )
    seconds = (newer.at_ms - older.at_ms) / 1_000
    return max(0, now - then) / seconds if seconds > 0 else None


def gone_ms(
    standing: Standing, waiting: int, part: str = "settled", destination: str = ""
) -> int | None:
    """Return the time (ms) at which the waiting deliveries will be settled; None = not known.

    It is reckoned from the pace of the last minute.
    """
    is_old = standing.samples and standing.now_ms - standing.samples[0].at_ms > _OLD_MS
    pace = None if is_old else per_second(standing.samples, part, destination)
    return round(standing.now_ms + 1_000 * waiting / pace) if waiting and pace else None


def live_late(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers whose live deliveries wait too long, unless another problem says why.

    The time in which they could not go does not count: after a pause, the backlog needs its time.
    """
    if not standing.workers:
        return
    for name, one in standing.triggers.items():
        is_explained = one.condition.stops or standing.is_closed(one.destination, name)
        if is_explained or not is_late(standing, one):
            continue
        free_ms = _free_since(standing, one.destination, name)
        meant = standing.settings.operate.live_within_seconds
        if standing.now_ms - free_ms <= meant * 1_000:
            continue
        waited = in_short((standing.now_ms - (one.oldest_live_ms or 0)) / 1_000)
        message = (
            f"its oldest live delivery has waited for {waited}, and at most {in_short(meant)} is"
            f" meant to be (operate.live_within): {_why_slow(standing, one.destination)}"
        )
        since_ms = max(one.oldest_live_ms or 0, free_ms)
        show = f"segrelay tap --trigger {name}"
        yield HealthProblem("live_late", ILL, name, message, show, since_ms)


def is_late(standing: Standing, one: TriggerStanding) -> bool:
    """Say whether a trigger's oldest live delivery has waited for too long."""
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


def _why_slow(standing: Standing, destination: str) -> str:
    """Return why a destination's deliveries are slow, although they may go, and what to do."""
    known, samples = standing.destinations.get(destination), standing.samples
    if not samples or known is None:
        return "no worker has reported how far it is"
    newest = samples[0]
    recent = sample_before(samples, newest.at_ms - RECENT_MS) or newest
    before = sample_before(samples, newest.at_ms - HANGS_MS + 1_000) or newest
    requests, per_minute, seconds = pace_between(recent, newest, destination)
    # Of a low rate, one request more or less in so short a time says nothing.
    most = known.rate * (newest.at_ms - recent.at_ms) / _MS_A_MINUTE
    if most and requests + 1 >= USED_UP * most:
        return (
            f"its rate is used up ({per_minute:,.0f} of {known.rate:,.0f} requests a minute)."
            f" Ask {destination} for a higher rate, and raise `rate`"
        )
    settled = [settled_of(one.counts.get(destination, {}), "live") for one in (newest, before)]
    if before is not newest and settled[0] == settled[1]:
        span = in_short((newest.at_ms - before.at_ms) / 1_000)
        return f"the workers hang: for {span} nothing was settled. See their logs, and restart them"
    if seconds >= SLOW_SECONDS:
        return f"an answer takes {seconds:,.1f} s. Look at {destination}"
    return "the workers are too few for what comes. Start one more, here or elsewhere"


STANDS_STILL_MS: Final = 120_000
"""Milliseconds without a settled delivery after which due work counts as stalled."""
WINDOW_MS: Final = 900_000
"""Milliseconds over which the growth of dead letters and of the quarantine is measured."""
MANY_DEAD: Final = 10
DEAD_SHARE: Final = 0.2
"""Share of dead deliveries of a trigger that is ill, if they are at least `MANY_DEAD`."""
MANY_SKIPPED: Final = 20
"""The number of skipped events from which on an assert that skips all of them is a problem."""
_OUTCOMES: Final = ("dead|", "delivered|", "skipped|")
_ASSERTED: Final = ("skipped", "asserted")
MANY_QUARANTINED: Final = 10
RECENT_MS: Final = 30_000
"""Milliseconds whose answers tell whether a destination is slow."""
SLOW_SECONDS: Final = 2.0
_NONE_SETTLED: Final = (
    "wait and workers run, but for two minutes none was settled: look at the workers' logs"
)


def standing_still(standing: Standing) -> Iterator[HealthProblem]:
    """Yield destinations and backfills of which nothing is settled although work is due."""
    if not standing.samples or not standing.processes:
        return
    for destination in standing.samples[0].counts:
        of_triggers = {n: t for n, t in standing.triggers.items() if t.destination == destination}
        is_stopped = any(one.condition.state != "ok" for one in of_triggers.values())
        if is_stopped or standing.is_closed(destination):
            continue
        since_ms = _still_since(standing, destination, "", of_triggers)
        if since_ms is not None:
            waiting = standing.samples[0].counts[destination].get("waits", 0)
            message = f"{waiting:,} live deliveries {_NONE_SETTLED}"
            show = f"segrelay tap --destination {destination}"
            yield HealthProblem("live_late", ILL, destination, message, show, since_ms)
        for job, one in standing.jobs.items():
            since_ms = _still_since(standing, destination, job, of_triggers)
            if since_ms is not None and one.condition.state in {"delivering", "canary under way"}:
                message = f"{one.counts.waiting:,} of its deliveries {_NONE_SETTLED}"
                show = f"segrelay backfill status {job}"
                yield HealthProblem("job_stands_still", ILL, job, message, show, since_ms)


def _still_since(
    standing: Standing, destination: str, job: str, triggers: Iterable[str]
) -> int | None:
    """Return the time since which nothing was settled; None = the work has not stalled."""
    part, waits = (f"job|{job}", f"waits|{job}") if job else ("live", "waits")
    since_ms, first = None, settled_of(standing.samples[0].counts[destination], part)
    stops = {field_of(DESTINATION, destination), *(field_of(TRIGGER, name) for name in triggers)}
    for sample in standing.samples:
        counts = sample.counts.get(destination, {})
        has_settled = settled_of(counts, part) != first
        if not counts.get(waits) or has_settled or stops & set(sample.stopped):
            break
        since_ms = sample.at_ms
    is_long = since_ms is not None and standing.now_ms - since_ms >= STANDS_STILL_MS
    return since_ms if is_long else None


def outcomes(standing: Standing) -> Iterator[HealthProblem]:
    """Yield triggers with recent dead letters, or of which an `assert` skipped all lately."""
    samples = standing.samples
    before = sample_before(samples, standing.now_ms - WINDOW_MS)
    if before is None:
        return
    for trigger, counts in _grown(samples, before).items():
        dead = {reason: count for (kind, reason), count in counts.items() if kind == "dead"}
        skipped, delivered = counts[_ASSERTED], counts["delivered", ""]
        if dead:
            died = sum(dead.values())
            is_ill = died >= MANY_DEAD and died / (died + delivered) >= DEAD_SHARE
            settled = plural(died + delivered, "delivery", "deliveries")
            message = f"{died:,} of its last {settled} died: {counted(dict(sorted(dead.items())))}"
            since_ms = _grows_since(samples, before, "dead", trigger)
            severity, show = ILL if is_ill else ATTENTION, "segrelay dlq causes"
            yield HealthProblem("dead_letters_grow", severity, trigger, message, show, since_ms)
            continue
        changes = _changes(standing, trigger)
        since_change = max((_all_skipped(samples, at, trigger) for at in changes), default=0)
        if since_change or (skipped >= MANY_SKIPPED and not delivered):
            change = "since its template or configuration changed"
            when = change if since_change else "in the last quarter of an hour"
            message = (
                f"an assert of its template skipped all of the {since_change or skipped:,} events"
                f" that were due {when}: is it right, and do they have the fields that it asks"
                " for? Nothing is kept of them to replay: once it is right, send them again by a"
                " backfill"
            )
            mend = f"segrelay template check {standing.template_of(trigger)}".rstrip()
            since_ms = _grows_since(samples, before, "skipped", trigger)
            severity = ILL if since_change else ATTENTION
            yield HealthProblem("assert_skips_all", severity, trigger, message, mend, since_ms)


def _changes(standing: Standing, trigger: str) -> Iterator[Sample]:
    """Yield the samples right after and before a trigger's last change; none = it was long ago.

    Where no change is seen and the samples do not reach back far enough, the oldest one is yielded.
    What came between both samples belongs to either.
    """
    samples = standing.samples
    for newer, older in pairwise(samples):
        if newer.fingerprints.get(trigger) != older.fingerprints.get(trigger):
            yield from (newer, older)
            return
    if standing.now_ms - samples[-1].at_ms < WINDOW_MS:
        yield samples[-1]


def _all_skipped(samples: Sequence[Sample], before: Sample, trigger: str) -> int:
    """Return how many an assert has skipped since a sample, if nothing else was done; else 0."""
    own = _grown(samples, before).get(trigger, Counter())
    skipped = own[_ASSERTED]
    return skipped if skipped >= MANY_SKIPPED and own.keys() == {_ASSERTED} else 0


def _grown(samples: Sequence[Sample], before: Sample) -> dict[str, Counter[tuple[str, str]]]:
    """Return the outcomes that were counted since a sample, by trigger, kind and reason."""
    now, then = (_outcomes_of(one) for one in (samples[0], before))
    return {trigger: grown for trigger, one in now.items() if (grown := one - then[trigger])}


def _outcomes_of(sample: Sample) -> defaultdict[str, Counter[tuple[str, str]]]:
    """Return the outcomes by trigger, kind and reason, over all destinations."""
    found = defaultdict[str, Counter[tuple[str, str]]](Counter)
    for counts in sample.counts.values():
        for name, count in counts.items():
            if name.startswith(_OUTCOMES):
                kind, trigger, *reason = name.split("|")
                found[trigger][kind, "".join(reason)] += count
    return found


def _grows_since(samples: Sequence[Sample], before: Sample, kind: str, trigger: str = "") -> int:
    """Return the time of the last sample whose count was that at the window's edge (ms)."""

    def count(sample: Sample) -> int:
        if kind == "quarantined":
            return sample.quarantined
        own = _outcomes_of(sample)[trigger]
        return sum(count for (of_kind, _), count in own.items() if of_kind == kind)

    edge = count(before)
    return next(at.at_ms for at in samples if at.at_ms >= before.at_ms and count(at) == edge)


_EXPIRING: Final = {
    LETTERS: ("letters_expire", "dead_letters", "dead letter", "dlq list --destination {subject}"),
    RECORDS: ("quarantine_expires", "quarantine", "quarantined record", "quarantine list"),
}
"""The problem, the key of `retention`, the noun and the command of each kind that is dropped."""


def expiring(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem for dead letters and records that are going to be dropped."""
    for one in standing.retention.expiring:
        name, limit, noun, words = _EXPIRING[one.what]
        before, at = (shown_ms(ms, "seconds") for ms in (one.before_ms, one.from_ms))
        count, show = plural(one.count, noun), f"segrelay {words.format(subject=one.subject)}"
        message = (
            f"{count} will be dropped for good from {at} on, as retention.{limit} says: nobody has"
            " dealt with it. Export or replay it, or raise that"
        )
        show = f"{show} --until {before}"
        yield HealthProblem(name, ATTENTION, one.subject, message, show, one.since_ms)


def quarantine(standing: Standing) -> Iterator[HealthProblem]:
    """Yield a problem if events could not be placed lately."""
    before = sample_before(standing.samples, standing.now_ms - WINDOW_MS)
    grown = standing.quarantined - before.quarantined if before else 0
    if before and grown > 0:
        severity = ILL if grown >= MANY_QUARANTINED else ATTENTION
        message = f"{plural(grown, 'event')} came that could not be placed"
        show = "segrelay quarantine list"
        since_ms = _grows_since(standing.samples, before, "quarantined")
        yield HealthProblem("quarantine_grows", severity, "", message, show, since_ms)

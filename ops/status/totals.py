"""The counts of all partitions, added up, and what waits in them, by trigger, job and lane.

The pace of a destination between two samples, and of counts between looks at the status.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from segrelay.ops.state.partitions import PartitionSnapshot, Stream, sum_counts
from segrelay.ops.state.waiting import count_orphans
from segrelay.worker.contract.counts import (
    ACCEPTED,
    ANSWERED,
    ASKED,
    CARRIED,
    DELIVERY_BOUNDS,
    OCCURRED,
    REQUEST_BOUNDS,
    TOOK,
    Histogram,
    prefix_of_delivery,
)
from segrelay.worker.contract.keys import without_lane
from segrelay.worker.contract.processes import Sample
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import BACKFILL, LIVE, job_of_lane, kind_of_lane

KINDS: Final = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")
OUTCOMES: Final = KINDS[:-1]
REASONED: Final = ("skipped", "dead")
OF_REQUESTS: Final = ("requests", "unanswered", "resent", "shared_identity")
_MEASURES: Final = frozenset({ANSWERED, CARRIED.partition("|")[0], ASKED, TOOK})
_JOB: Final = "job"


CountersByName = defaultdict[str, Counter[str]]


def _counters() -> CountersByName:
    return defaultdict(Counter)


@dataclass(slots=True)
class LaneWait:
    """The deliveries of a trigger that wait in one kind of lane; `oldest_ms` by Redis' clock."""

    deliveries: int
    oldest_ms: int


@dataclass(slots=True)
class Totals:
    """The counts of all partitions, added up.

    Args:
        reasons: By `skipped` or `dead`, and by trigger: the counts by reason.
        by_lane_of: By trigger and kind of lane: the counts of outcomes, e.g. `skipped|asserted`.
        measures: By destination, the counts as `segrelay.worker.contract.counts` names them.
    """

    now_ms: int = 0
    by_trigger: CountersByName = field(default_factory=_counters)
    by_job: CountersByName = field(default_factory=_counters)
    reasons: Mapping[str, CountersByName] = field(
        default_factory=lambda: {kind: _counters() for kind in REASONED}
    )
    by_lane_of: dict[str, CountersByName] = field(default_factory=dict)
    waits: dict[str, dict[str, LaneWait]] = field(default_factory=dict)
    measures: dict[str, dict[str, int]] = field(default_factory=dict)
    dead_letters: Counter[str] = field(default_factory=Counter)
    dropped_fields: Counter[str] = field(default_factory=Counter)
    orphans: Counter[str] = field(default_factory=Counter)
    intents_in_doubt: int = 0
    oldest_ms: int | None = None
    oldest_live_ms: dict[str, int] = field(default_factory=dict)
    by_lane: Counter[str] = field(default_factory=Counter)
    oldest_of_lane_ms: dict[str, int] = field(default_factory=dict)

    def of_all(self) -> dict[str, int]:
        """Return the counts of each kind over all triggers."""
        return {kind: self.sum_of(kind) for kind in KINDS}

    def sum_of(self, kind: str) -> int:
        """Return the count of one kind over all triggers."""
        return sum(each.get(kind, 0) for each in self.by_trigger.values())

    def by_reason(self, kind: str) -> Counter[str]:
        """Return the counts of one kind by reason, over all triggers."""
        found: Counter[str] = Counter()
        for reasons in self.reasons[kind].values():
            for reason, count in reasons.items():
                found[reason] += count
        return found

    def lanes_of(self, trigger: str) -> dict[str, Any]:
        """Return the outcomes of a trigger's deliveries in each kind of lane.

        What an earlier version has counted without its lane is live, also where it is taken off
        again as backfill.
        """
        counted = self.by_lane_of.get(trigger, _counters())
        owed = Counter({name: n for name, n in counted[BACKFILL].items() if n < 0})
        counted[LIVE].update(owed)
        counted[BACKFILL].subtract(owed)
        lanes = [LIVE, *([BACKFILL] if any(counted[BACKFILL].values()) else [])]
        return {lane: _outcomes(counted[lane]) for lane in lanes}

    def of_lanes(self) -> dict[str, Any]:
        """Return the number of waiting deliveries, and the age of the oldest, in each lane."""
        return {
            name: {
                "waiting": count,
                "oldest_seconds": max(0, self.now_ms - self.oldest_of_lane_ms[name]) / 1000,
            }
            for name, count in sorted(self.by_lane.items())
        }

    def of_destination(self, destination: str) -> dict[str, Any]:
        """Return the requests, times and letters of a destination."""
        return {
            "requests": self.requests_of(destination),
            "delivery_seconds": self.times_of(destination),
            "letters": self.dead_letters[destination],
        }

    def requests_of(self, destination: str) -> dict[str, Any]:
        """Return the answers to the requests of a destination, and the times that they took."""
        counts = self.measures.get(destination, {})
        statuses = {
            name.partition("|")[2]: count
            for name, count in sorted(counts.items())
            if name.startswith(f"{ANSWERED}|")
        }
        return {
            "by_status": statuses,
            "users": counts.get(CARRIED, 0),
            "seconds": Histogram.read(counts, ASKED, REQUEST_BOUNDS).document(),
        }

    def times_of(self, destination: str) -> dict[str, Any]:
        """Return the times that deliveries of a destination took, by kind of lane and beginning."""
        counts = self.measures.get(destination, {})
        return {
            kind: {
                since: Histogram.read(
                    counts, prefix_of_delivery(kind, since), DELIVERY_BOUNDS
                ).document()
                for since in (OCCURRED, ACCEPTED)
            }
            for kind in (LIVE, BACKFILL)
        }


def _outcomes(counts: Mapping[str, int]) -> dict[str, Any]:
    by_reason: dict[str, dict[str, int]] = {kind: {} for kind in REASONED}
    for name, count in counts.items():
        kind, _, reason = name.partition("|")
        if kind in REASONED and count:
            by_reason[kind][reason] = count
    return {
        kind: sum(by_reason[kind].values()) if kind in REASONED else counts.get(kind, 0)
        for kind in OUTCOMES
    } | {f"{kind}_by_reason": found for kind, found in by_reason.items()}


def add_up(
    found: Sequence[PartitionSnapshot], settings: Settings, scopes: Mapping[str, Scope]
) -> Totals:
    """Add up the counts and the waiting deliveries of partitions."""
    totals = Totals()
    for destination, counts in sum_counts(found).items():
        for name, count in counts.items():
            _add_count(totals, destination, name, count)
    for one in found:
        totals.now_ms = max(totals.now_ms, one.now_ms)
        totals.intents_in_doubt += one.intents_in_doubt
        totals.dead_letters[one.place.destination] += one.dead_letters
        for stream in one.waiting:
            _add_waiting(totals, stream, count_orphans(settings, stream, scopes))
    return totals


def _add_count(totals: Totals, destination: str, field_name: str, count: int) -> None:
    lane, outcome = without_lane(field_name)
    kind, name, *rest = outcome.split("|")
    if kind == _JOB:
        if len(rest) == 1:  # what follows a second word is a part of it
            totals.by_job[name][rest[0]] += count
        return
    if kind in _MEASURES:
        totals.measures.setdefault(destination, {})[field_name] = count
        return
    if kind == "dropped":
        totals.dropped_fields["|".join(rest)] += count
        return
    totals.by_trigger[name][kind] += count
    if kind in REASONED:
        totals.reasons[kind][name][rest[0]] += count
    if kind in OUTCOMES:
        totals.by_lane_of.setdefault(name, _counters())[lane]["|".join((kind, *rest))] += count


def _add_waiting(totals: Totals, stream: Stream, orphans: int) -> None:
    totals.by_trigger[stream.trigger]["waiting"] += stream.length
    job = job_of_lane(stream.lane)
    if job:
        totals.by_job[job]["waiting"] += stream.length
    if orphans:
        totals.orphans[stream.trigger] += orphans
    if not stream.length:
        return
    if not orphans and stream.lane == LIVE:
        known = totals.oldest_live_ms.get(stream.trigger, stream.since_ms)
        totals.oldest_live_ms[stream.trigger] = min(known, stream.since_ms)
    totals.by_lane[stream.lane] += stream.length
    first = totals.oldest_of_lane_ms.get(stream.lane, stream.since_ms)
    totals.oldest_of_lane_ms[stream.lane] = min(first, stream.since_ms)
    oldest = stream.since_ms if totals.oldest_ms is None else totals.oldest_ms
    totals.oldest_ms = min(oldest, stream.since_ms)
    lanes = totals.waits.setdefault(stream.trigger, {})
    wait = lanes.setdefault(kind_of_lane(stream.lane), LaneWait(0, stream.since_ms))
    wait.deliveries += stream.length
    wait.oldest_ms = min(wait.oldest_ms, stream.since_ms)


_MS_A_MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class Pace:
    """The number and the duration of a destination's requests in a span of time."""

    requests: int
    asked_ms: int
    span_ms: int

    @classmethod
    def between(cls, older: Sample, newer: Sample, destination: str) -> Pace:
        """Return the pace between two samples; counts that fell because they were moved are 0."""
        then, now = (one.counts.get(destination, {}) for one in (older, newer))
        grown = {name: now.get(name, 0) - then.get(name, 0) for name in ("requests", "asked|ms")}
        requests, asked_ms = (max(0, count) for count in grown.values())
        return cls(requests, asked_ms, newer.at_ms - older.at_ms)

    @property
    def mean_seconds(self) -> float:
        """Return the mean time of a request."""
        return self.asked_ms / self.requests / 1_000 if self.requests else 0.0

    @property
    def per_minute(self) -> float:
        """Return the number of requests a minute."""
        return self.requests * _MS_A_MINUTE / self.span_ms if self.span_ms > 0 else 0.0


LOOKS: Final = 11
"""Number of looks that are kept: at one a second, rates are those of the last ten seconds."""
_SETTLED: Final = ("delivered", "skipped", "dead", "discarded")


class _Look(NamedTuple):
    at_seconds: float
    counts: Mapping[str, int]


@dataclass(slots=True)
class ProgressMeter:
    """Measures how quickly totals, triggers and jobs go on, by the last looks at the status.

    Args:
        most_looks: Two of them measure the time since the last look.
    """

    most_looks: int = LOOKS
    _looks: deque[_Look] = field(default_factory=deque)

    def look(self, document: Mapping[str, Any], now_seconds: float) -> None:
        """Record the counts of a status, and drop the oldest ones."""
        self._looks.append(_Look(now_seconds, dict(_counts(document))))
        if len(self._looks) > self.most_looks:
            self._looks.popleft()

    def rates(self) -> dict[str, float] | None:
        """Return the growth of each kind of count a second; None until there are two looks."""
        found = {kind: self.of(kind) for kind in KINDS}
        return {kind: round(rate, 1) for kind, rate in found.items() if rate is not None} or None

    def of(self, name: str) -> float | None:
        """Return the growth of a count a second; None until there are two looks.

        Args:
            name: `requests`, a kind of count, `trigger|NAME` or `job|NAME`.
        """
        if len(self._looks) < 2:  # noqa: PLR2004 - a rate is between two
            return None
        first, last = self._looks[0], self._looks[-1]
        seconds = last.at_seconds - first.at_seconds
        if seconds <= 0 or name not in first.counts or name not in last.counts:
            return None
        return (last.counts[name] - first.counts[name]) / seconds


def _counts(document: Mapping[str, Any]) -> list[tuple[str, int]]:
    found = [(kind, document[kind]) for kind in (*KINDS, "requests")]
    for kind in ("trigger", "job"):
        for name, one in document[f"{kind}s"].items():
            found.append((f"{kind}|{name}", sum(one[each] for each in _SETTLED)))
    return found

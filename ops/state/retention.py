"""The time limits of kept things: the announcements, the things that go soon, the dropped ones.

Only what was announced for `retention.warning` may be dropped. The time in which no worker ran does
not count: one that was away for weeks, or a clock that was set forward, announces first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from segrelay.ops.state.partitions import ask_each
from segrelay.ops.terminal.moments import shown_ms
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.producer.steps import StepState, StepStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.outcomes import EXPIRED
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import RetentionSettings

LETTERS: Final = "dead letters"
RECORDS: Final = "quarantined records"
JOBS: Final = "backfills"
LONGEST_PAUSE_MS: Final = 600_000
"""The longest time between two steps that counts as a time in which health could be asked."""
MARKS: Final = 16
"""Marks made in the time of a warning: old things go later by one part of it at most."""


class Mark(NamedTuple):
    """A note that everything from before a time (ms) was announced, and since when (ms)."""

    at_ms: int
    before_ms: int


class Limit(NamedTuple):
    """The time (ms) for which things are kept, and that for which it is announced that they go."""

    kept_ms: int
    warning_ms: int

    @classmethod
    def of(cls, kept_seconds: float, settings: RetentionSettings) -> Self:
        """Return the limit; one that is shorter than the warning is announced for all its time."""
        warning_seconds = min(settings.warning_seconds, kept_seconds)
        return cls(round(1_000 * kept_seconds), round(1_000 * warning_seconds))

    def announced_before_ms(self, now_ms: int) -> int:
        """Return the time from before which things are announced now."""
        return now_ms - self.kept_ms + self.warning_ms


def marked(marks: Sequence[Mark], limit: Limit, *, now_ms: int, seen_ms: int) -> list[Mark]:
    """Return the marks with what is announced now.

    Args:
        marks: Those of the step before.
        limit: A longer one than before takes back what was announced too early.
        now_ms: Redis' clock.
        seen_ms: The time of the step before.
    """
    before_ms, pause_ms = limit.announced_before_ms(now_ms), now_ms - seen_ms
    paused_ms = pause_ms if pause_ms > LONGEST_PAUSE_MS else 0
    known = [
        Mark(min(now_ms, one.at_ms + paused_ms), one.before_ms)
        for one in marks
        if one.before_ms <= before_ms
    ]
    if not known or now_ms - known[-1].at_ms >= limit.warning_ms / MARKS:
        known.append(Mark(now_ms, before_ms))
    ripe = [one for one in known if one.at_ms <= now_ms - limit.warning_ms]
    return [*ripe[-1:], *known[len(ripe) :]]


def droppable_before_ms(marks: Sequence[Mark], limit: Limit, now_ms: int) -> int:
    """Return the time from before which things are old enough and were announced for long enough.

    0 = nothing may be dropped.
    """
    ripe = [one.before_ms for one in marks if one.at_ms <= now_ms - limit.warning_ms]
    return min(now_ms - limit.kept_ms, max(ripe, default=0))


@dataclass(slots=True)
class RetentionState(StepState):
    """The state of retention between two steps, as Redis keeps it.

    Args:
        seen_ms: The time of the last step.
        marks: The announcements, by kind of thing.
        told: The number of dropped things that the audit tells of, by kind.
        told_ms: The time of the audit's last act about them, by kind.
        dropped_ms: The time of the last step that dropped some, by kind.
    """

    seen_ms: int = 0
    marks: dict[str, list[Mark]] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    told_ms: dict[str, int] = field(default_factory=dict)
    dropped_ms: dict[str, int] = field(default_factory=dict)


def limits_of(settings: RetentionSettings) -> dict[str, Limit]:
    """Return the limits of the things that are dropped after a time, by kind."""
    kept = {
        LETTERS: settings.dead_letters_seconds,
        RECORDS: settings.quarantine_seconds,
        JOBS: settings.history_seconds,
    }
    return {what: Limit.of(seconds, settings) for what, seconds in kept.items() if seconds}


def ever_dropped(client: Redis, partitions: Sequence[PartitionKeys]) -> dict[str, int]:
    """Return how many were ever dropped because they were kept for long enough."""
    letters = ask_each(client, partitions, lambda pipe, at: pipe.hget(at.counts, EXPIRED))
    return {
        LETTERS: sum(int(count or 0) for count in letters),
        RECORDS: Quarantine(client).totals().expired,
    }


@dataclass(frozen=True, slots=True)
class Expiring:
    """Things that go soon, unless somebody deals with them.

    Args:
        what: The kind: dead letters, quarantined records, or the bad rows of a backfill.
        subject: The destination's name of dead letters, or the backfill's of bad rows; "" for
            quarantined records.
        count: The number of things.
        before_ms: All that is from before this time.
        since_ms: The time since which it is announced that the oldest of them goes.
        from_ms: The time when it is dropped at the earliest, if a worker runs until then.
    """

    what: str
    subject: str
    count: int
    before_ms: int
    since_ms: int
    from_ms: int


def times_of(
    oldest_ms: int, marks: Sequence[Mark], limit: Limit, now_ms: int
) -> tuple[int, int, int]:
    """Return the three times of things that go soon, of which the oldest is from a time."""
    since_ms = next((one.at_ms for one in marks if one.before_ms > oldest_ms), now_ms)
    from_ms = max(oldest_ms + limit.kept_ms, since_ms + limit.warning_ms)
    return limit.announced_before_ms(now_ms), since_ms, from_ms


@dataclass(frozen=True, slots=True)
class RetentionStanding:
    """The things that go soon, and those that have gone, because of their age.

    Args:
        expiring: The things that go soon.
        dropped: The number of things ever dropped, by kind.
        dropped_ms: The time of the last step that dropped some, by kind.
    """

    expiring: Sequence[Expiring] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    dropped_ms: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it for JSON documents."""
        return {
            what.replace(" ", "_"): {
                "expiring": sum(one.count for one in self.expiring if one.what == what),
                "dropped": self.dropped.get(what, 0),
                "dropped_at": shown_ms(at) if (at := self.dropped_ms.get(what)) else None,
            }
            for what in (LETTERS, RECORDS)
        }


def read_retention(
    client: Redis,
    settings: Settings,
    partitions: Sequence[PartitionKeys],
    now_ms: int,
    *,
    dropped: Mapping[str, int],
    bad_rows: Mapping[str, tuple[int, int]],
    unreadable: list[str],
) -> RetentionStanding:
    """Read which things go soon, in one round trip.

    Args:
        client: Redis.
        settings: The configuration.
        partitions: All of them.
        now_ms: Redis' clock.
        dropped: The number of those that have ever gone, by kind.
        bad_rows: The number of bad rows, and when it ended (ms), of backfills that are over.
        unreadable: See `read_record`.
    """
    limits = limits_of(settings.retention)
    letters = [(LETTERS, at.destination, at.dead_letter_times) for at in partitions]
    asked = [one for one in (*letters, (RECORDS, "", keys.quarantine("seen"))) if one[0] in limits]
    pipe = client.pipeline(transaction=False)
    pipe.hget(keys.RETENTION, "state")
    for what, _, times in asked:
        pipe.zcount(times, "-inf", f"({limits[what].announced_before_ms(now_ms)}")
        pipe.zrange(times, 0, 0, withscores=True)
    stored, *answers = pipe.execute()
    state = RetentionState.loads(stored or b"", "the state of retention", unreadable)
    counts: Counter[tuple[str, str]] = Counter()
    oldest_ms: dict[tuple[str, str], int] = {}
    for (what, name, _), count, first in zip(asked, answers[::2], answers[1::2], strict=True):
        if count:
            counts[what, name] += count
            known_ms = oldest_ms.get((what, name), now_ms)
            oldest_ms[what, name] = min(known_ms, int(first[0][1]))
    for name, (count, ended_ms) in bad_rows.items() if JOBS in limits else ():
        if ended_ms < limits[JOBS].announced_before_ms(now_ms):
            counts[JOBS, name], oldest_ms[JOBS, name] = count, ended_ms
    expiring = []
    for (what, name), count in counts.items():
        marks = state.marks.get(what, ())
        when = times_of(oldest_ms[what, name], marks, limits[what], now_ms)
        expiring.append(Expiring(what, name, count, *when))
    return RetentionStanding(expiring, dropped, state.dropped_ms)


def store_for(client: Redis) -> StepStore[RetentionState]:
    """Return the state and the lock of the steps of retention."""
    return StepStore(client, keys.RETENTION, "retention", RetentionState)

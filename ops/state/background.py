"""Results of background jobs: the things that retention drops soon, and readings by `verify`.

Of kept things: the limits, when they may go, which go soon, and how many have gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from segrelay.ops.state.partitions import ask_each
from segrelay.producer.steps import StepState
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import RetentionSettings

LETTERS: Final = "dead letters"
RECORDS: Final = "quarantined records"
JOBS: Final = "backfills"


_LONGEST_PAUSE_MS: Final = 600_000
"""The longest time between two steps in which health could be asked."""


def limits_of(settings: RetentionSettings) -> dict[str, int]:
    """Return the time (ms) after which things are dropped, for each kind that is."""
    kept = {
        LETTERS: settings.dead_letters_seconds,
        RECORDS: settings.quarantine_seconds,
        JOBS: settings.history_seconds,
    }
    return {what: round(1_000 * seconds) for what, seconds in kept.items() if seconds}


@dataclass(slots=True)
class RetentionState(StepState):
    """The state of retention between two steps.

    Args:
        seen_ms: The time of the last step.
        owed_ms: The time for which nothing is dropped yet, because no worker ran for so long, a
            clock was set forward, or a limit has become shorter: health has to name first what has
            become too old.
        kept_ms: The limits by kind.
    """

    seen_ms: int = 0
    owed_ms: int = 0
    kept_ms: dict[str, int] = field(default_factory=dict)

    def is_due(self, now_ms: int, warning_ms: int, kept_ms: dict[str, int]) -> bool:
        """Take the time since the last step into account, and say whether something may go."""
        passed_ms = now_ms - (self.seen_ms or now_ms)
        owed_ms = self.owed_ms + (passed_ms if passed_ms > _LONGEST_PAUSE_MS else -passed_ms)
        if any(ms < self.kept_ms.get(what, inf) for what, ms in kept_ms.items()):
            owed_ms = warning_ms
        self.seen_ms, self.owed_ms = now_ms, min(max(0, owed_ms), warning_ms)
        self.kept_ms = kept_ms
        return not self.owed_ms


@dataclass(frozen=True, slots=True)
class Expiring:
    """Things that go soon, unless somebody deals with them.

    Args:
        what: The kind: dead letters or quarantined records.
        subject: The destination's name of dead letters; "" for quarantined records.
        count: The number of things.
        before_ms: All that is from before this time.
        since_ms: The time since which it is announced that the oldest of them goes.
        from_ms: The time when it is dropped, if a worker runs then.
    """

    what: str
    subject: str
    count: int
    before_ms: int
    since_ms: int
    from_ms: int


@dataclass(frozen=True, slots=True)
class RetentionStanding:
    """The things that go soon, and those that have gone, because of their age.

    Args:
        expiring: The things that go soon.
        dropped: The number of things ever dropped, by kind.
    """

    expiring: Sequence[Expiring] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the numbers of both kinds of things, as JSON documents show them."""
        return {
            what.replace(" ", "_"): {
                "expiring": sum(one.count for one in self.expiring if one.what == what),
                "dropped": self.dropped.get(what, 0),
            }
            for what in (LETTERS, RECORDS)
        }


def read_expiring(
    client: Redis,
    settings: Settings,
    partitions: Sequence[PartitionKeys],
    now_ms: int,
) -> list[Expiring]:
    """Read which things go within `retention.warning`.

    Args:
        client: Redis.
        settings: The configuration.
        partitions: All partitions of all destinations.
        now_ms: The time by Redis' clock.
    """
    limits = limits_of(settings.retention)
    warning_ms = round(1_000 * settings.retention.warning_seconds)
    told_after_ms = {what: max(0, kept_ms - warning_ms) for what, kept_ms in limits.items()}
    letters = [(LETTERS, at.destination, at.dead_letter_times) for at in partitions]
    asked = [one for one in (*letters, (RECORDS, "", keys.quarantine("seen"))) if one[0] in limits]
    answers = ask_each(
        client,
        asked,
        lambda pipe, one: pipe.zcount(one[2], "-inf", f"({now_ms - told_after_ms[one[0]]}"),
        lambda pipe, one: pipe.zrange(one[2], 0, 0, withscores=True),
    )
    stored: Any = client.hget(keys.RETENTION, "state")
    state = RetentionState.loads(stored or b"")
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (what, name, _), count, first in zip(asked, answers[::2], answers[1::2], strict=True):
        if count and first:
            others, oldest_ms = found.get((what, name), (0, now_ms))
            found[what, name] = others + count, min(oldest_ms, int(first[0][1]))
    return [
        Expiring(
            what,
            name,
            count,
            before_ms=now_ms - told_after_ms[what],
            since_ms=oldest_ms + told_after_ms[what],
            from_ms=max(now_ms + state.owed_ms, oldest_ms + limits[what]),
        )
        for (what, name), (count, oldest_ms) in found.items()
    ]


@dataclass(slots=True)
class VerifyState(StepState):
    """The result of the last step at one destination.

    Args:
        at_ms: The time of the last step that could read; Redis' clock.
        people: The number of people whom it read.
        differences: The number of memberships that Insider does not hold as the ledger says.
        failures: The number of steps in a row since then in which nobody could be read.
        problem: The problem that stopped the last of them.
    """

    at_ms: int = 0
    people: int = 0
    differences: int = 0
    failures: int = 0
    problem: str = ""


def read_verified(
    client: Redis, settings: Settings, unreadable: list[str]
) -> Mapping[str, VerifyState]:
    """Return the result at each destination that is verified on a schedule."""
    names = [name for name, one in settings.destinations.items() if one.verify_every_seconds]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hget(keys.verify(name), "state")
    texts: list[Any] = pipe.execute() if names else []
    return {
        name: VerifyState.loads(text or b"", f"verify {name}", unreadable)
        for name, text in zip(names, texts, strict=True)
    }

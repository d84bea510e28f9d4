"""The canary of a job: a few of its first people, as the destination holds them now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from ops.backfill.planning import Planner
from ops.trial.reading_back import AS_SENT, compared, read_back
from producer.backfill.job import Spec
from producer.sources.opening import STANDARD_INPUT
from worker.checks.rehearsal import Rehearsed, rehearse
from worker.contract.settings import Settings, Trigger
from worker.destinations.api import Shaped
from worker.errors import SegrelayError

PEOPLE: Final = 3
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 2.0
"""What was written may show only later."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """One person.

    Args:
        outcome: What would become of the person's delivery today: `sent`, or why not.
        attributes: Each that was sent: as sent, differs, not there.
        problem: Why it could not be read; "" = it was.
        sent: What was sent.
        found: What Insider holds.
    """

    trigger: str
    outcome: str
    attributes: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    sent: Any = field(default=None, repr=False)
    found: Any = field(default=None, repr=False)

    def document(self, *, reveal: bool) -> dict[str, Any]:
        """Return it for machines; values only if they are wanted."""
        told: dict[str, Any] = {
            "trigger": self.trigger,
            "outcome": self.outcome,
            "attributes": self.attributes,
            "problem": self.problem or None,
        }
        return told | {"sent": self.sent, "found": self.found} if reveal else told


def read_canary(client: Redis, settings: Settings, spec: Spec) -> Iterator[ReadBack]:
    """Yield the first people of a job; nothing for standard input, which can't be read again.

    Raises:
        UsageWrong: The source is not what it was.
        RedisUnavailable: Redis can't be asked.
    """
    if STANDARD_INPUT in spec.sources:
        return
    planner = Planner(client, settings)
    for candidate in planner.first(spec, PEOPLE):
        trigger = settings.triggers[candidate.trigger]
        (rehearsed,) = rehearse([candidate], settings, now_us=planner.now_us())
        yield _read(rehearsed, trigger, settings)


def _read(rehearsed: Rehearsed, trigger: Trigger, settings: Settings) -> ReadBack:
    shaped = rehearsed.shaped
    if shaped is None:
        return ReadBack(trigger.name, f"{rehearsed.fate} {rehearsed.reason}")
    if settings.destinations[trigger.destination].api != "insider":
        return ReadBack(trigger.name, "sent", problem="Only Insider can be read back.")
    try:
        found, verdicts = _insisting(shaped, trigger, settings)
    except SegrelayError as error:
        return ReadBack(trigger.name, "sent", problem=error.message)
    problem = "" if found is not None else "Insider does not know this person (yet)."
    return ReadBack(trigger.name, "sent", verdicts, problem, shaped.users, found)


def _insisting(
    shaped: Shaped, trigger: Trigger, settings: Settings
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    for tries_left in reversed(range(_TRIES)):
        found = read_back(shaped, trigger, settings)
        verdicts = compared(shaped, found)
        if not tries_left or (verdicts and set(verdicts.values()) == {AS_SENT}):
            break
        time.sleep(_PAUSE_SECONDS)
    return found, verdicts

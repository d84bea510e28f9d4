"""A few of the first people of a job, as the destination holds them now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from ops.backfill.planning import Planner
from ops.insider.read_back import AS_SENT, read_sent
from producer.backfill.job import Spec
from producer.sources.opening import STANDARD_INPUT
from worker.checks.rehearsal import rehearse
from worker.contract.settings import Settings, Trigger
from worker.destinations.api import Shaped

PEOPLE: Final = 3
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 2.0
"""Pause between two readings in seconds: Insider shows a write some time after it."""


@dataclass(frozen=True, slots=True)
class FirstPerson:
    """One of the first people of a job, as the destination holds them.

    Args:
        verdicts: Whether each sent attribute is there: as sent, differs, not there.
    """

    trigger: str
    outcome: str
    verdicts: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    sent: Any = field(default=None, repr=False)
    found: Mapping[str, Any] | None = field(default=None, repr=False)

    def document(self, *, reveal: bool) -> dict[str, Any]:
        """Return the JSON document; values only if they are to be revealed."""
        told: dict[str, Any] = {
            "trigger": self.trigger,
            "outcome": self.outcome,
            "attributes": self.verdicts,
            "problem": self.problem or None,
        }
        return told | {"sent": self.sent, "found": self.found} if reveal else told


def read_first_people(client: Redis, settings: Settings, spec: Spec) -> Iterator[FirstPerson]:
    """Yield the first people of a job; nothing for standard input, which can't be read again."""
    if STANDARD_INPUT in spec.sources:
        return
    planner = Planner(client, settings)
    for candidate in planner.first(spec, PEOPLE):
        trigger = settings.triggers[candidate.trigger]
        (rehearsed,) = rehearse([candidate], settings, now_us=planner.now_us())
        if rehearsed.shaped is None:
            yield FirstPerson(trigger.name, f"{rehearsed.fate} {rehearsed.reason}")
        else:
            yield _read(rehearsed.shaped, trigger, settings)


def _read(shaped: Shaped, trigger: Trigger, settings: Settings) -> FirstPerson:
    for tries_left in reversed(range(_TRIES)):
        read = read_sent(shaped, trigger, settings)
        verdicts = {} if read.problem else read.verdicts(shaped)
        if read.problem or not tries_left or set(verdicts.values()) == {AS_SENT}:
            break
        time.sleep(_PAUSE_SECONDS)
    problem = read.problem
    if not problem and read.attributes is None:
        problem = "Insider does not know this person (yet)."
    return FirstPerson(trigger.name, "sent", verdicts, problem, shaped.users, read.attributes)

"""What goes into publishing and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from producer.payloads import Reading, Refused
from producer.quarantine import NewRecord
from producer.writing import Place
from worker.contract.accept import NewDelivery
from worker.contract.words import Refusal


@dataclass(frozen=True, slots=True)
class Problem:
    """What was refused, and where it stood.

    Args:
        line: Of the source, or the payload's number in the call, from 1.
        index: Of the payload in the array of that line, from 0.
    """

    line: int
    index: int
    reason: str
    message: str
    audience: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of payloads.

    Args:
        events: That could be read, wanted or not.
        accepted: Deliveries that are in Redis now.
        unmatched: Events that no trigger wants; in the quarantine.
        refused: Payloads and events that could not be placed; in the quarantine.
        repeated: Deliveries that an earlier run of the same job had published already.
        rang: Partitions that have something to drain and whose bell was silent.
    """

    payloads: int = 0
    events: int = 0
    accepted: int = 0
    unmatched: int = 0
    refused: int = 0
    repeated: int = 0
    problems: tuple[Problem, ...] = ()
    rang: tuple[Place, ...] = ()


@dataclass(slots=True)
class Draft:
    """What a call will write: built first, written then."""

    lane: str
    reading: Reading
    payloads: int = 0
    events: int = 0
    unmatched: int = 0
    problems: list[Problem] = field(default_factory=list)
    deliveries: dict[Place, list[NewDelivery]] = field(default_factory=dict)
    kept: list[NewRecord] = field(default_factory=list)

    def keep(self, reason: Refusal, audience: str, message: str, content: bytes) -> None:
        """Put something into the quarantine."""
        reading = self.reading
        self.kept.append(
            NewRecord(
                reason, audience, message, content, self.lane, reading.state, reading.skip_hook
            )
        )

    def refuse(self, refused: Refused, *, line: int, index: int) -> None:
        """Name a problem, and keep what has it."""
        self.problems.append(
            Problem(line, index, refused.reason.value, refused.message, refused.audience)
        )
        if refused.content:
            self.keep(refused.reason, refused.audience, refused.message, refused.content)

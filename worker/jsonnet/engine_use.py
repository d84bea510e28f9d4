"""Counts how many of the last events of a template needed the engine, and why."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

LAST_EVENTS: Final = 1_000
"""Events of each template that a process remembers."""
COMPILED: Final = ""
"""In the place of a reason: the compiled form rendered the event."""


class EngineUse:
    """The reasons why the last events of one template needed the engine, if they did."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque(maxlen=LAST_EVENTS)

    def note(self, why: str = COMPILED) -> None:
        """Note an event, and why the engine was needed; by default it was not."""
        self._recent.append(why)

    def note_all(self, events: int, why: str) -> None:
        """Note events for which the engine was needed for the same reason."""
        self._recent.extend([why] * events)

    def counts(self) -> dict[str, int]:
        """Return the number of events by reason, in the reasons' order."""
        return dict(sorted(Counter(self._recent).items()))

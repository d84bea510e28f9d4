"""Counts of requests in a sliding window, and of bodies and users that came again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

_KEPT_A_GENERATION: Final = 2_000_000


class RepeatedFate(IntEnum):
    """The fate of a received body, user or event; a higher fate replaces a lower one."""

    NOT_APPLIED = 1
    """Refused, or lost before it took effect: receiving it again is right."""
    IN_FLIGHT = 2
    """The request that carried it has not ended yet."""
    UNANSWERED = 3
    """Took effect without a sure answer: receiving it again is explained."""
    ANSWERED = 4
    """Took effect and was answered as delivered: receiving it again needs an explanation."""


class _LastFate(NamedTuple):
    """The last fate of a body, user or event, and the number of its request."""

    fate: RepeatedFate
    number: int


class Repeats:
    """The fates of whole bodies or of single users, by their hashes.

    Remembers two to four million; older ones are forgotten.

    Attributes:
        counts: Receptions again, by the highest fate before.
        doubled: Numbers of the requests of which something came again, by their fate.
    """

    def __init__(self) -> None:
        self.received = 0
        self.counts: Counter[RepeatedFate] = Counter()
        self.doubled: dict[RepeatedFate, set[int]] = {fate: set() for fate in RepeatedFate}
        self._young: dict[int, _LastFate] = {}
        self._old: dict[int, _LastFate] = {}

    def receive(self, hashes: Iterable[int], number: int = 0) -> RepeatedFate | None:
        """Record the hashes of a request, and return the highest fate that one of them had."""
        highest: RepeatedFate | None = None
        past, fates = _LastFate(RepeatedFate.IN_FLIGHT, number), self._young
        for each in hashes:
            self.received += 1
            before = fates.get(each) or self._old.get(each)
            if before is None:
                fates[each] = past
                continue
            self.counts[before.fate] += 1
            self.doubled[before.fate].add(before.number)
            highest = before.fate if highest is None else max(highest, before.fate)
            fates[each] = before if before.fate > RepeatedFate.IN_FLIGHT else past
        if len(self._young) > _KEPT_A_GENERATION:
            self._old, self._young = self._young, {}
        return highest

    def end(self, hashes: Iterable[int], fate: RepeatedFate, number: int = 0) -> None:
        """Record the fate of bodies or users, by their hashes."""
        past, fates = _LastFate(fate, number), self._young
        for each in hashes:
            before = fates.get(each)
            if before is None or before.fate is RepeatedFate.IN_FLIGHT:
                fates[each] = past
            else:
                fates[each] = before if before.fate >= fate else past

    def shown(self) -> dict[str, int]:
        """Return the counts as JSON; `doubled_…` counts requests."""
        again = {f"again_after_{fate.name.lower()}": self.counts[fate] for fate in RepeatedFate}
        doubled = {f"doubled_{fate.name.lower()}": len(self.doubled[fate]) for fate in RepeatedFate}
        return {"received": self.received, "again": sum(self.counts.values()), **again, **doubled}


class SlidingWindow:
    """The times of requests in a sliding window, and the largest number in any window.

    Attributes:
        highest: The most that any window held since the start.
    """

    def __init__(self) -> None:
        self.highest = 0
        self._times: deque[float] = deque()

    def count(self, now: float, window_seconds: float) -> int:
        """Return the number of requests in the window that ends now."""
        times = self._times
        while times and times[0] <= now - window_seconds:
            times.popleft()
        return len(times)

    def add(self, now: float, window_seconds: float) -> None:
        """Count a request that arrives now."""
        self._times.append(now)
        self.highest = max(self.highest, self.count(now, window_seconds))

    def wait_seconds(self, now: float, window_seconds: float) -> float:
        """Return the seconds until the oldest request leaves the window."""
        return max(0.0, self._times[0] + window_seconds - now) if self._times else 0.0

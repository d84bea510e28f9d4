"""What was received again, and what had become of it before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

_KEPT_A_GENERATION: Final = 2_000_000


class Fate(IntEnum):
    """What became of something that was received; a higher one stands over a lower one."""

    NOT_APPLIED = 1
    """Refused, or lost before it took effect: receiving it again is right."""
    IN_FLIGHT = 2
    """Not ended yet."""
    UNANSWERED = 3
    """Took effect without a sure answer: receiving it again is explained."""
    ANSWERED = 4
    """Took effect and was answered as delivered: receiving it again needs an explanation."""


class Repeats:
    """Fates by hash, of whole bodies or of single users.

    Remembers two to four million; older ones are forgotten.

    Attributes:
        counts: Receptions again, by the highest fate before.
    """

    def __init__(self) -> None:
        self.received = 0
        self.counts: Counter[Fate] = Counter()
        self._young: dict[int, Fate] = {}
        self._old: dict[int, Fate] = {}

    def receive(self, hashes: Iterable[int]) -> Fate | None:
        """Count receptions.

        Returns:
            The highest fate that one of them had before, None if all are new.
        """
        highest: Fate | None = None
        fates = self._young
        for each in hashes:
            self.received += 1
            before = fates.get(each) or self._old.get(each)
            if before is None:
                fates[each] = Fate.IN_FLIGHT
                continue
            self.counts[before] += 1
            highest = before if highest is None else max(highest, before)
            fates[each] = max(before, Fate.IN_FLIGHT)
        self._age()
        return highest

    def end(self, hashes: Iterable[int], fate: Fate) -> None:
        """Note what became of them."""
        fates = self._young
        for each in hashes:
            before = fates.get(each, Fate.IN_FLIGHT)
            fates[each] = fate if before is Fate.IN_FLIGHT else max(before, fate)

    def shown(self) -> dict[str, int]:
        """Return the counts as they are printed."""
        again = {f"again_after_{fate.name.lower()}": self.counts[fate] for fate in Fate}
        return {"received": self.received, "again": sum(self.counts.values()), **again}

    def _age(self) -> None:
        if len(self._young) > _KEPT_A_GENERATION:
            self._old, self._young = self._young, {}

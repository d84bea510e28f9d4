"""The share of the canaries of changed templates that one drain may use.

A drain has a share of each canary of its destination. What is left to be rendered beyond it stays
in its stream, and nothing more of that trigger is read in this drain; other triggers go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from worker.batch.parcel import Contender
from worker.batch.partition import Settled
from worker.batch.state import State


@dataclass(slots=True)
class CanaryShares:
    """One drain's share of the canaries, and the outcomes so far.

    Args:
        held: Triggers that it leaves alone: the canary goes with another version of the template
            than this process has, or others have all that is left of it.
        shares: By trigger, how many deliveries may be rendered. Other triggers have no limit.
        outcomes: By trigger, how the deliveries of its canary ended, e.g. `skipped|asserted`.
    """

    held: frozenset[str] = frozenset()
    shares: Mapping[str, int] = field(default_factory=dict)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    _admitted: dict[str, set[str]] = field(default_factory=dict)

    def admit(self, going: Sequence[Contender], state: State) -> list[Contender]:
        """Return the contenders within their triggers' shares; beyond it, a trigger is not read."""
        if not self.shares:
            return list(going)
        return [each for each in going if self._may_go(each, state)]

    def _may_go(self, contender: Contender, state: State) -> bool:
        trigger, place = contender.delivery.trigger, contender.delivery.place
        share = self.shares.get(trigger)
        if share is None:
            return True
        admitted = self._admitted.setdefault(trigger, set())
        if place not in admitted and len(admitted) >= share:
            state.enough.add(trigger)
            return False
        admitted.add(place)
        return True

    def count(self, settled: Iterable[Settled]) -> None:
        """Count outcomes that Redis has confirmed."""
        for outcome in settled if self.shares else ():
            trigger = outcome.delivery.trigger
            if outcome.delivery.place in self._admitted.get(trigger, ()):
                self.outcomes.setdefault(trigger, Counter())[outcome.name] += 1

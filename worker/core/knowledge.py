"""The newer facts that the ledger holds about a profile, for correcting an older event's body."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from worker.contract.ledger import Item, Record, is_newer
from worker.contract.words import Direction
from worker.core.ledger import Fact


class Knowledge(NamedTuple):
    """The newer facts of a profile that an event's own data does not have yet.

    Attributes:
        inside: Slugs of other audiences that something newer entered.
        outside: Slugs of other audiences that something newer exited.
        stale: The event's trigger has already sent newer data of this profile.
        stale_opt_ins: Some trigger has.
    """

    inside: frozenset[str] = frozenset()
    outside: frozenset[str] = frozenset()
    stale: bool = False
    stale_opt_ins: bool = False


_NOTHING_NEWER: Final = Knowledge()
_NOBODY: Final[frozenset[str]] = frozenset()


def knowledge(
    record: Record, fact: Fact, slugs: Callable[[Iterable[int]], frozenset[str]]
) -> Knowledge:
    """Return the facts newer than an event; `slugs` names audiences by their numbers."""
    since_us = max(fact.time_us, 1)
    ahead = [each for each in record.items.items() if each[1].delivered_us >= since_us]
    if not ahead and record.data_us <= fact.time_us:
        return _NOTHING_NEWER
    newest: dict[int, tuple[int, Direction]] = {}
    for (audience, _), item in ahead:
        if item.direction is Direction.CHANGE or audience == fact.audience:
            continue
        best = newest.get(audience)
        if best is None or is_newer(item.delivered_us, item.direction, *best):
            newest[audience] = (item.delivered_us, item.direction)
    entered = [a for a, (_, direction) in newest.items() if direction is Direction.ENTER]
    left = [a for a, (_, direction) in newest.items() if direction is Direction.EXIT]
    return Knowledge(
        inside=slugs(entered) if entered else _NOBODY,
        outside=slugs(left) if left else _NOBODY,
        stale=any(_data_us(record, i) > fact.time_us for (_, by), i in ahead if by == fact.trigger),
        stale_opt_ins=record.data_us > fact.time_us,
    )


def _data_us(record: Record, item: Item) -> int:
    """Return the latest time of the profile data that an item's trigger can have sent."""
    return min(item.delivered_us, record.data_us) if item.raised else item.delivered_us

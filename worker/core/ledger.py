"""The rules of the ledger: if an event is still needed, and the record after it.

A record never goes back: the times delivered and tried only grow.

The newer facts that the ledger holds about a profile, for correcting an older event's body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from segrelay.worker.contract.ledger import Item, Record, is_newer
from segrelay.worker.contract.words import Direction, Skip
from segrelay.worker.core.supersede import Claim, supersedes

FAR_MS: Final = 3_155_760_000_000
"""Milliseconds that a record outlives its retention in Redis, which so never removes one itself.

`lapse.lua` removes them, and `_lapsing.lua` knows the number too.
"""
_REPLAYS_AT_MOST: Final = 255
_WHOLE_LIST: Final = (0, 0)
"""The key of the item that stands for all audiences; numbers of real ones begin with 1."""


class Fact(NamedTuple):
    """The facts about a delivery that the ledger needs.

    Attributes:
        audience: The audience's number.
        trigger: The trigger's number.
        profile_hash: Of a change's profile, 32 bits, never 0; 0 for other directions.
        replays: How often it came back from the dead letters.
        again: Deliver it although it was delivered before, or is already there.
    """

    audience: int
    trigger: int
    direction: Direction
    time_us: int
    state: bool = False
    repair: bool = False
    profile_hash: int = 0
    replays: int = 0
    again: bool = False

    @property
    def claim(self) -> Claim:
        """Return the claim of the delivery."""
        return Claim(self.time_us, self.direction, self.trigger)


def judge(record: Record, fact: Fact) -> Skip | None:
    """Say why an event need not be delivered, or None if it has to be."""
    own = record.items.get((fact.audience, fact.trigger))
    if own and not fact.repair and not fact.again and _is_duplicate(own, fact):
        return Skip.DUPLICATE
    if any(
        supersedes(Claim(item.delivered_us, item.direction, trigger), fact.claim)
        for trigger, item in record.about(fact.audience)
        if item.delivered_us
    ):
        return Skip.SUPERSEDED
    if fact.state and own and not fact.again and _is_already_there(record, own, fact):
        return Skip.ALREADY_THERE
    return None


def _is_duplicate(own: Item, fact: Fact) -> bool:
    return (
        own.delivered_us == fact.time_us
        and own.direction is fact.direction
        and own.profile_hash == fact.profile_hash
    )


def _is_already_there(record: Record, own: Item, fact: Fact) -> bool:
    if not own.delivered_us or own.direction is not fact.direction:
        return False
    told = record.items.get(_WHOLE_LIST)
    if told and told.delivered_us > own.delivered_us:
        return False
    return not any(
        is_newer(time_us, item.direction, own.delivered_us, own.direction)
        for _, item in record.about(fact.audience)
        if item.direction not in (own.direction, Direction.CHANGE)
        for time_us in (item.delivered_us, item.tried_us)
        if time_us
    )


def is_in_doubt(record: Record, fact: Fact) -> bool:
    """Say whether an event may have been sent by a request that got no sure answer.

    The ledger knows the newest that was tried; of an older one it can't be told any more. What a
    person replayed since is in doubt only if that replay was tried, too.
    """
    own = record.items.get((fact.audience, fact.trigger))
    if own is None or own.direction is not fact.direction:
        return False
    if own.tried_us > fact.time_us:
        return fact.replays == 0
    return own.tried_us == fact.time_us and own.tried_replays >= fact.replays


def with_whole_list(record: Record, time_us: int) -> Record:
    """Return the record after a body that replaces the whole list: it told of every audience.

    Whether or not it was answered: what it may have told of another audience is as old as its
    event, so that what was delivered before that time is no longer known to be there.
    """
    old = record.items.get(_WHOLE_LIST)
    if old and old.delivered_us >= time_us:
        return record
    item = Item(Direction.CHANGE, delivered_us=time_us)
    return Record(record.data_us, {**record.items, _WHOLE_LIST: item})


def with_delivered(record: Record, fact: Fact, *, data_sent: bool = True) -> Record:
    """Return the record after a delivery; `data_sent` if it carried profile data."""
    old = _item(record, fact)
    if fact.time_us < old.delivered_us:
        return record
    is_tried_later = old.tried_us > fact.time_us
    item = Item(
        fact.direction,
        fact.time_us,
        old.tried_us if is_tried_later else 0,
        fact.profile_hash,
        tried_replays=old.tried_replays if is_tried_later else 0,
    )
    data_us = max(record.data_us, fact.time_us) if data_sent else record.data_us
    return Record(data_us, {**record.items, (fact.audience, fact.trigger): item})


def with_raised(record: Record, fact: Fact) -> Record:
    """Return the record after a state event that brought nothing new: only the time grows."""
    old = _item(record, fact)
    if fact.time_us <= old.delivered_us:
        return record
    item = old._replace(delivered_us=fact.time_us, raised=True)
    return Record(record.data_us, {**record.items, (fact.audience, fact.trigger): item})


def with_tried(record: Record, fact: Fact) -> Record:
    """Return the record after a request that got no sure answer."""
    old = _item(record, fact)
    replays = min(fact.replays, _REPLAYS_AT_MOST)
    if (fact.time_us, replays) <= (old.tried_us, old.tried_replays):
        return record
    item = old._replace(tried_us=fact.time_us, tried_replays=replays)
    return Record(record.data_us, {**record.items, (fact.audience, fact.trigger): item})


def may_be_member(record: Record) -> bool:
    """Say whether the person may be in some audience; then the record never lapses.

    An entrance that was tried without a sure answer may have taken effect.
    """
    for (audience, _), item in record.items.items():
        if item.direction is Direction.ENTER:
            entered_us = max(item.delivered_us, item.tried_us)
            if entered_us and not _has_left(record, audience, entered_us):
                return True
    return False


def _has_left(record: Record, audience: int, entered_us: int) -> bool:
    if len(record.items) == 1:
        return False
    return any(
        item.direction is Direction.EXIT and item.delivered_us >= entered_us
        for _, item in record.about(audience)
    )


def merged(record: Record, other: Record) -> Record:
    """Merge two records of one profile, keeping the newer facts of each audience and trigger.

    Merging again changes nothing.
    """
    items = dict(record.items)
    for key, item in other.items.items():
        known = items.get(key)
        items[key] = _merged(known, item) if known else item
    return Record(max(record.data_us, other.data_us), items)


def _merged(one: Item, other: Item) -> Item:
    if one.direction is not other.direction:
        return max(one, other, key=lambda item: max(item.delivered_us, item.tried_us))
    newer = max(one, other, key=lambda item: item.delivered_us)
    tried = max(one, other, key=lambda item: (item.tried_us, item.tried_replays))
    return newer._replace(tried_us=tried.tried_us, tried_replays=tried.tried_replays)


def _item(record: Record, fact: Fact) -> Item:
    old = record.items.get((fact.audience, fact.trigger))
    return old if old and old.direction is fact.direction else Item(fact.direction)


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

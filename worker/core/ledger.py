"""The rules of the ledger: whether an event is still needed, and the record after it.

Also the order of events of one profile and audience, of two and within a batch.

A record never goes back: the times delivered and tried only grow. An older event's body is
corrected by the newer facts that it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from segrelay.worker.contract.ledger import Item, Record, is_newer
from segrelay.worker.contract.words import Direction, Skip

if TYPE_CHECKING:
    from segrelay.worker.contract.events import Header


class LedgerEvent(NamedTuple):
    """An event as the ledger judges it.

    Attributes:
        key: The numbers of its audience and of the trigger that delivers it.
        profile_hash: The hash of a change's profile, 32 bits, never 0; 0 for other directions.
    """

    header: Header
    key: tuple[int, int]
    profile_hash: int = 0


def is_superseded(event: LedgerEvent, time_us: int, direction: Direction, trigger: int) -> bool:
    """Say whether an event of a trigger, of this time and direction, makes another one untrue.

    Both are of the same profile and audience. Newer is the later time; at equal times the exit.
    It supersedes what its own trigger would deliver, and the other direction by any trigger.
    A change is about its own trigger only.
    """
    own_us, own_direction = event.header.time_us, event.header.direction
    same_trigger = trigger == event.key[1]
    if Direction.CHANGE in (direction, own_direction):
        return same_trigger and time_us > own_us
    if not is_newer(time_us, direction, own_us, own_direction):
        return False
    return same_trigger or direction != own_direction


T = TypeVar("T")


def contest(entrants: Sequence[tuple[Hashable, LedgerEvent, T]]) -> list[tuple[T, tuple[T, ...]]]:
    """Return the entrants that go on, in the order given, each with those that it supersedes.

    Linear in the number of entrants: of the deliveries about one thing only the newest of each
    trigger can win.

    Args:
        entrants: Tuples of profile and audience, the event about them, and an object that stands
            for it.
    """
    rivals: dict[Hashable, list[int]] = {}
    for position, (about, _, _) in enumerate(entrants):
        rivals.setdefault(about, []).append(position)
    winner_of: dict[int, int] = {}
    for positions in rivals.values():
        if len(positions) > 1:
            winner_of.update(_winners(positions, entrants))
    superseded: dict[int, list[T]] = {}
    for position, winner in winner_of.items():
        superseded.setdefault(winner, []).append(entrants[position][2])
    return [
        (entrant, tuple(superseded.get(position, ())))
        for position, (_, _, entrant) in enumerate(entrants)
        if position not in winner_of
    ]


def _winners(
    positions: list[int], entrants: Sequence[tuple[Hashable, LedgerEvent, T]]
) -> dict[int, int]:
    """Return for each superseded entrant one that goes on and supersedes it.

    What is superseded only by a superseded event goes on: it says what the newest says.
    """
    going: dict[tuple[int, Direction], int] = {}
    winners: dict[int, int] = {}
    # Newest first: none is superseded by one behind it.
    for position in sorted(positions, key=lambda at: entrants[at][1].header.moment, reverse=True):
        event = entrants[position][1]
        for (trigger, direction), other in going.items():
            if is_superseded(event, entrants[other][1].header.time_us, direction, trigger):
                winners[position] = other
                break
        else:
            going.setdefault((event.key[1], event.header.direction), position)
    return winners


_REPLAYS_AT_MOST: Final = 255
_WHOLE_LIST: Final = (0, 0)
"""The key of the item that stands for all audiences; numbers of real ones begin with 1."""


def judge(record: Record, event: LedgerEvent) -> Skip | None:
    """Say why an event need not be delivered, or None if it has to be."""
    if not record.items:
        return None
    own, header = record.items.get(event.key), event.header
    if own and not header.repair and not header.again and _is_duplicate(own, event):
        return Skip.DUPLICATE
    if any(
        is_superseded(event, item.delivered_us, item.direction, trigger)
        for trigger, item in record.about(event.key[0])
        if item.delivered_us
    ):
        return Skip.SUPERSEDED
    if header.state and own and not header.again and _is_already_there(record, own, event):
        return Skip.ALREADY_THERE
    return None


def _is_duplicate(own: Item, event: LedgerEvent) -> bool:
    return (
        own.delivered_us == event.header.time_us
        and own.direction is event.header.direction
        and own.profile_hash == event.profile_hash
    )


def _is_already_there(record: Record, own: Item, event: LedgerEvent) -> bool:
    if not own.delivered_us or own.direction is not event.header.direction:
        return False
    told = record.items.get(_WHOLE_LIST)
    if told and told.delivered_us > own.delivered_us:
        return False
    return not any(
        is_newer(time_us, item.direction, own.delivered_us, own.direction)
        for _, item in record.about(event.key[0])
        if item.direction not in (own.direction, Direction.CHANGE)
        for time_us in (item.delivered_us, item.tried_us)
        if time_us
    )


def is_in_doubt(record: Record, event: LedgerEvent) -> bool:
    """Say whether an event may have been sent by a request that got no sure answer.

    The ledger knows the newest that was tried; of an older one it can't be told any more. What a
    person replayed since is in doubt only if that replay was tried, too.
    """
    own, header = record.items.get(event.key), event.header
    if own is None or own.direction is not header.direction:
        return False
    if own.tried_us > header.time_us:
        return header.replays == 0
    return own.tried_us == header.time_us and own.tried_replays >= header.replays


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


def with_delivered(record: Record, event: LedgerEvent, *, data_sent: bool = True) -> Record:
    """Return the record after a delivery; `data_sent` if it carried profile data."""
    time_us = event.header.time_us
    item = Item(event.header.direction, time_us, 0, event.profile_hash)
    data_us = max(record.data_us, time_us) if data_sent else record.data_us
    if not record.items:
        return Record(data_us, {event.key: item})
    old = _item(record, event)
    if time_us < old.delivered_us:
        return record
    if old.tried_us > time_us:
        item = item._replace(tried_us=old.tried_us, tried_replays=old.tried_replays)
    return Record(data_us, {**record.items, event.key: item})


def with_raised(record: Record, event: LedgerEvent) -> Record:
    """Return the record after a state event that brought nothing new: only the time grows."""
    old, time_us = _item(record, event), event.header.time_us
    if time_us <= old.delivered_us:
        return record
    item = old._replace(delivered_us=time_us, raised=True)
    return Record(record.data_us, {**record.items, event.key: item})


def with_tried(record: Record, event: LedgerEvent) -> Record:
    """Return the record after a request that got no sure answer."""
    old, time_us = _item(record, event), event.header.time_us
    replays = min(event.header.replays, _REPLAYS_AT_MOST)
    if (time_us, replays) <= (old.tried_us, old.tried_replays):
        return record
    item = old._replace(tried_us=time_us, tried_replays=replays)
    return Record(record.data_us, {**record.items, event.key: item})


def may_be_member(record: Record) -> bool:
    """Say whether the person may be in some audience; then the record never lapses.

    An entrance that was tried without a sure answer may have taken effect.
    """
    is_alone = len(record.items) == 1
    for (audience, _), item in record.items.items():
        if item.direction is Direction.ENTER:
            entered_us = max(item.delivered_us, item.tried_us)
            if entered_us and (is_alone or not _has_left(record, audience, entered_us)):
                return True
    return False


def _has_left(record: Record, audience: int, entered_us: int) -> bool:
    return any(
        item.direction is Direction.EXIT and item.delivered_us >= entered_us
        for _, item in record.about(audience)
    )


def _item(record: Record, event: LedgerEvent) -> Item:
    old, direction = record.items.get(event.key), event.header.direction
    return old if old and old.direction is direction else Item(direction)


class Knowledge(NamedTuple):
    """The newer facts of a profile that an event's own data does not have yet.

    Attributes:
        inside: The slugs of other audiences that the profile entered later.
        outside: The slugs of other audiences that the profile left later.
        stale: True if the event's trigger has already sent newer data of this profile.
        stale_opt_ins: True if some trigger has already sent newer data of this profile.
    """

    inside: frozenset[str] = frozenset()
    outside: frozenset[str] = frozenset()
    stale: bool = False
    stale_opt_ins: bool = False


_NOTHING_NEWER: Final = Knowledge()
_NOBODY: Final[frozenset[str]] = frozenset()


def knowledge(
    record: Record, event: LedgerEvent, slugs: Callable[[Iterable[int]], frozenset[str]]
) -> Knowledge:
    """Return the facts newer than an event; `slugs` names audiences by their numbers."""
    time_us, (own_audience, own_trigger) = event.header.time_us, event.key
    if not record.items and record.data_us <= time_us:
        return _NOTHING_NEWER
    since_us = max(time_us, 1)
    ahead = [each for each in record.items.items() if each[1].delivered_us >= since_us]
    if not ahead and record.data_us <= time_us:
        return _NOTHING_NEWER
    newest: dict[int, tuple[int, Direction]] = {}
    for (audience, _), item in ahead:
        if item.direction is Direction.CHANGE or audience == own_audience:
            continue
        best = newest.get(audience)
        if best is None or is_newer(item.delivered_us, item.direction, *best):
            newest[audience] = (item.delivered_us, item.direction)
    entered = [a for a, (_, direction) in newest.items() if direction is Direction.ENTER]
    left = [a for a, (_, direction) in newest.items() if direction is Direction.EXIT]
    return Knowledge(
        inside=slugs(entered) if entered else _NOBODY,
        outside=slugs(left) if left else _NOBODY,
        stale=any(_data_us(record, i) > time_us for (_, by), i in ahead if by == own_trigger),
        stale_opt_ins=record.data_us > time_us,
    )


def _data_us(record: Record, item: Item) -> int:
    """Return the latest time of the profile data that an item's trigger can have sent."""
    return min(item.delivered_us, record.data_us) if item.raised else item.delivered_us

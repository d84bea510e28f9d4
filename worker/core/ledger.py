"""The ledger of one profile: what was delivered and tried, and if an event is still needed.

Packed: one byte of format, the time of the newest profile data sent (8 bytes), then an item per
audience and trigger: two numbers (LEB128), a byte of flags, the newest time delivered and the
newest time tried without an answer (7 bytes each, if any), for a change 4 bytes of its hash, and
how often what was tried had been replayed (a byte, if it had).
Times are µs since 1970. A record never goes back: both times only grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from worker.contract.words import Direction, Skip
from worker.core.beats import Claim, beats, is_newer
from worker.errors import FormatUnknown

RECORD_FORMAT: Final = 1
FAR_MS: Final = 3_155_760_000_000
"""Milliseconds that a record outlives its retention in Redis, which so never removes one itself.

`lapse.lua` removes them, and `_lapsing.lua` knows the number too.
"""
_DIRECTIONS: Final = (Direction.ENTER, Direction.EXIT, Direction.CHANGE)
_ENTER, _EXIT, _ = _DIRECTIONS
_NUMBER_OF: Final = {direction: number for number, direction in enumerate(_DIRECTIONS)}
_DIRECTION_BITS: Final = 3
_DELIVERED: Final = 4
_TRIED: Final = 8
_HASHED: Final = 16
_RAISED: Final = 32
_REPLAYED: Final = 64
_TIME_BYTES: Final = 7
_HASH_BYTES: Final = 4
_REPLAYS_BYTES: Final = 1
_REPLAYS_AT_MOST: Final = 255
_VARINT_MORE: Final = 0x80
_WHOLE_LIST: Final = (0, 0)
"""The key of the item that stands for all audiences; numbers of real ones begin with 1."""


class Item(NamedTuple):
    """The newest times that one trigger delivered and tried for one audience of a profile.

    Attributes:
        delivered_us: Newest time delivered; 0 = none.
        tried_us: Newest time tried without a sure answer; 0 = none.
        profile_hash: Of the newest change delivered; 0 for other directions.
        raised: `delivered_us` was raised by a state event that sent nothing.
        tried_replays: How often what was tried at `tried_us` had come back from the dead letters.
    """

    direction: Direction
    delivered_us: int = 0
    tried_us: int = 0
    profile_hash: int = 0
    raised: bool = False
    tried_replays: int = 0


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


@dataclass(frozen=True, slots=True)
class Record:
    """The ledger of one profile.

    Args:
        data_us: Time of the newest profile data sent, by any trigger; 0 = none.
        items: By audience's and trigger's number.
    """

    data_us: int = 0
    items: dict[tuple[int, int], Item] = field(default_factory=dict)

    def about(self, audience: int) -> Iterator[tuple[int, Item]]:
        """Yield the items of one audience, each with the number of its trigger."""
        return ((key[1], item) for key, item in self.items.items() if key[0] == audience)


_NOT_KNOWN: Final = Record()


def judge(record: Record, fact: Fact) -> Skip | None:
    """Say why an event need not be delivered, or None if it has to be."""
    own = record.items.get((fact.audience, fact.trigger))
    if own and not fact.repair and not fact.again and _is_duplicate(own, fact):
        return Skip.DUPLICATE
    if any(
        beats(Claim(item.delivered_us, item.direction, trigger), fact.claim)
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
        if item.direction is _ENTER:
            entered_us = max(item.delivered_us, item.tried_us)
            if entered_us and not _has_left(record, audience, entered_us):
                return True
    return False


def _has_left(record: Record, audience: int, entered_us: int) -> bool:
    if len(record.items) == 1:
        return False
    return any(
        item.direction is _EXIT and item.delivered_us >= entered_us
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


def pack(record: Record) -> bytes:
    """Return the packed text of a record."""
    out = bytearray([RECORD_FORMAT])
    out += record.data_us.to_bytes(8, "big")
    for (audience, trigger), item in record.items.items():
        _put_number(out, audience)
        _put_number(out, trigger)
        out.append(_flags(item))
        if item.delivered_us:
            out += item.delivered_us.to_bytes(_TIME_BYTES, "big")
        if item.tried_us:
            out += item.tried_us.to_bytes(_TIME_BYTES, "big")
        if item.profile_hash:
            out += item.profile_hash.to_bytes(_HASH_BYTES, "big")
        if item.tried_replays:
            out += item.tried_replays.to_bytes(_REPLAYS_BYTES, "big")
    return bytes(out)


def _flags(item: Item) -> int:
    return (
        _NUMBER_OF[item.direction]
        | (_DELIVERED if item.delivered_us else 0)
        | (_TRIED if item.tried_us else 0)
        | (_HASHED if item.profile_hash else 0)
        | (_RAISED if item.raised else 0)
        | (_REPLAYED if item.tried_replays else 0)
    )


def unpack(text: bytes | None) -> Record:
    """Read a packed record; None yields the empty record of an unknown profile.

    Raises:
        FormatUnknown: A newer version of segrelay wrote it.
        IndexError: It is damaged.
    """
    if not text:
        return _NOT_KNOWN
    if text[0] > RECORD_FORMAT:
        raise FormatUnknown(
            f"A profile's ledger has format {text[0]}, and this version of segrelay knows"
            f" {RECORD_FORMAT}: a newer version wrote it, and can go on from it."
        )
    return _unpacked(text)


def unpack_all(
    texts: Mapping[bytes, bytes | None],
) -> tuple[dict[bytes, Record], dict[bytes, Exception]]:
    """Read packed records by digest; return the readable ones, and the errors of the others."""
    records: dict[bytes, Record] = {}
    unreadable: dict[bytes, Exception] = {}
    for digest, text in texts.items():
        try:
            records[digest] = unpack(text)
        except (FormatUnknown, IndexError) as error:
            unreadable[digest] = error
    return records, unreadable


def _unpacked(text: bytes) -> Record:
    position = 9
    items: dict[tuple[int, int], Item] = {}
    while position < len(text):
        audience, position = _take_number(text, position)
        trigger, position = _take_number(text, position)
        flags = text[position]
        position += 1
        delivered, position = _take(text, position, _TIME_BYTES if flags & _DELIVERED else 0)
        tried, position = _take(text, position, _TIME_BYTES if flags & _TRIED else 0)
        hashed, position = _take(text, position, _HASH_BYTES if flags & _HASHED else 0)
        replays, position = _take(text, position, _REPLAYS_BYTES if flags & _REPLAYED else 0)
        direction = _DIRECTIONS[flags & _DIRECTION_BITS]
        items[audience, trigger] = Item(
            direction, delivered, tried, hashed, bool(flags & _RAISED), replays
        )
    return Record(int.from_bytes(text[1:9], "big"), items)


def _take(text: bytes, position: int, size: int) -> tuple[int, int]:
    return int.from_bytes(text[position : position + size], "big"), position + size


def _put_number(out: bytearray, number: int) -> None:
    while number >= _VARINT_MORE:
        out.append(number & 0x7F | _VARINT_MORE)
        number >>= 7
    out.append(number)


def _take_number(text: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = text[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < _VARINT_MORE:
            return number, position
        shift += 7

"""The ledger's record of one profile: its packed form, and what it says of an audience.

Packed: the time of the newest profile data sent (7 bytes; their first bit is set and names the
format), then an item per audience and trigger:

- a number (LEB128). Its lowest three bits are the size of the time that follows (bytes), the next
  two the direction, the next one says that this time was raised, and the others are the numbers of
  audience and trigger, paired to one.
- the newest time delivered, less that of the newest profile data (signed). It takes no byte where
  both are the same, as for most people: Redis keeps a record for each person.

An item that holds more has 3 as its direction. Behind its time stand a byte of flags with the
direction, the newest time tried without an answer (7 bytes), for a change 4 bytes of its hash, and
how often what was tried had been replayed (a byte); each if there is any. Times are µs since 1970,
and before the year 3111.

The record of somebody who entered audience 1 by trigger 2, and a second later audience 3:

    86 5b fe da 35 22 40   1_790_000_001_000_000, the time of the newest profile data
    83 04 f0 bd c0         (1, 2) paired to 8, enter, 3 bytes: 1_000_000 µs before that time
    c0 08                  (3, 2) paired to 17, enter, no byte: at that time

Redis keeps the record of somebody who is in no audience for the retention only: in front of it
stand another byte of format and the end of that time (ms, 6 bytes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import isqrt
from typing import Final, NamedTuple

from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import FormatUnknown

RECORD_FORMAT: Final = 4
LAPSING_FORMAT: Final = 2
"""The first byte of a record that may lapse; `_lapsing.lua` writes it."""
_LASTING_AT: Final = 7
_MARKED: Final = 0x80
_TIME_BYTES: Final = 7
_MARK: Final = _MARKED << 8 * (_TIME_BYTES - 1)
"""The first bit of a record. The time of the newest profile data has the others."""
_DIRECTIONS: Final = (Direction.ENTER, Direction.EXIT, Direction.CHANGE)
_NUMBER_OF: Final = {direction: number for number, direction in enumerate(_DIRECTIONS)}
_SIZE_BITS: Final = 0b111
_DIRECTION_AT: Final = 3
_DIRECTION_BITS: Final = 0b11
_HOLDS_MORE: Final = 3
"""Stands for the direction of an item that holds more."""
_RAISED_AT: Final = 5
_KEY_AT: Final = 6
_DELIVERED: Final = 4
_TRIED: Final = 8
_HASHED: Final = 16
_REPLAYED: Final = 64
_HASH_BYTES: Final = 4
_REPLAYS_BYTES: Final = 1
_VARINT_MORE: Final = 0x80
_VARINT_BITS: Final = 7
_HEADS_REMEMBERED: Final = 8_192
_BYTES: Final = tuple(bytes([number]) for number in range(256))
_NO_TIME: Final = "A time of a ledger is negative, or after the year 3110."
_TOO_SHORT: Final = "A ledger ends within an item."

AUDIENCE_NAME: Final = "a|"
"""The prefix of slugs among the names to which the ledger's numbers belong."""

LastDelivered = tuple[Direction, int]
"""The newest delivery about a person and an audience: its direction and its time in µs."""


class Item(NamedTuple):
    """The newest times that one trigger delivered and tried for one audience of a profile.

    Attributes:
        delivered_us: Newest time delivered; 0 = none.
        tried_us: Newest time tried without a sure answer; 0 = none.
        profile_hash: The hash of the newest change delivered; 0 for other directions.
        raised: True if `delivered_us` was raised by a state event that sent nothing.
        tried_replays: The number of times that what was tried at `tried_us` had come back from the
            dead letters.
    """

    direction: Direction
    delivered_us: int = 0
    tried_us: int = 0
    profile_hash: int = 0
    raised: bool = False
    tried_replays: int = 0


_NO_ITEMS: Final[Mapping[tuple[int, int], Item]] = {}


class Record(NamedTuple):
    """The ledger of one profile.

    Attributes:
        data_us: Time of the newest profile data sent, by any trigger; 0 = none.
        items: The items, by the numbers of audience and trigger.
    """

    data_us: int = 0
    items: Mapping[tuple[int, int], Item] = _NO_ITEMS

    def about(self, audience: int) -> Iterator[tuple[int, Item]]:
        """Yield the items of one audience, each with the number of its trigger."""
        return ((key[1], item) for key, item in self.items.items() if key[0] == audience)


_NOT_KNOWN: Final = Record()


def is_newer(
    time_us: int, direction: Direction, other_time_us: int, other_direction: Direction
) -> bool:
    """Say whether the first moment is newer than the other; at equal times, an exit is newer."""
    is_exit = direction is Direction.EXIT
    return (time_us, is_exit) > (other_time_us, other_direction is Direction.EXIT)


def standing(record: Record, audience: int) -> LastDelivered | None:
    """Return direction and time of the newest delivery about an audience; None = there is none."""
    newest: LastDelivered | None = None
    for _, item in record.about(audience):
        if not item.delivered_us or item.direction is Direction.CHANGE:
            continue
        if newest is None or is_newer(item.delivered_us, item.direction, newest[1], newest[0]):
            newest = (item.direction, item.delivered_us)
    return newest


def pack(record: Record) -> bytes:
    """Return the packed text of a record.

    Raises:
        OverflowError: A time is negative, or after the year 3110.
    """
    data_us = record.data_us
    if not 0 <= data_us < _MARK:
        raise OverflowError(_NO_TIME)
    text = (_MARK | data_us).to_bytes(_TIME_BYTES, "big")
    for key, item in record.items.items():
        direction, delivered_us, tried_us, profile_hash, raised, tried_replays = item
        difference_us = delivered_us - data_us
        if tried_us or profile_hash or tried_replays or not delivered_us:
            text += _packed_with_more(key, item, difference_us)
        elif difference_us:
            size = (difference_us.bit_length() >> 3) + 1
            text += _head(key, direction, raised, size)
            text += difference_us.to_bytes(size, "big", signed=True)
        else:
            text += _head(key, direction, raised, 0)
    return text


def _packed_with_more(key: tuple[int, int], item: Item, difference_us: int) -> bytes:
    flags, time, values = _NUMBER_OF[item.direction], b"", b""
    if item.delivered_us:
        flags |= _DELIVERED
        if difference_us:
            size = (difference_us.bit_length() >> 3) + 1
            time = difference_us.to_bytes(size, "big", signed=True)
    if item.tried_us:
        flags |= _TRIED
        values += item.tried_us.to_bytes(_TIME_BYTES, "big")
    if item.profile_hash:
        flags |= _HASHED
        values += item.profile_hash.to_bytes(_HASH_BYTES, "big")
    if item.tried_replays:
        flags |= _REPLAYED
        values += item.tried_replays.to_bytes(_REPLAYS_BYTES, "big")
    return _head(key, None, item.raised, len(time)) + time + _BYTES[flags] + values


@lru_cache(_HEADS_REMEMBERED)
def _head(
    key: tuple[int, int],
    direction: Direction | None,
    raised: bool,  # noqa: FBT001 - called for each item: names would take a tenth of the time
    size: int,
) -> bytes:
    """Return the number with which an item begins; it holds more if its direction is None."""
    if size > _TIME_BYTES:
        raise OverflowError(_NO_TIME)
    number = _HOLDS_MORE if direction is None else _NUMBER_OF[direction]
    number = _paired(*key) << _KEY_AT | raised << _RAISED_AT | number << _DIRECTION_AT | size
    out = bytearray()
    while number >= _VARINT_MORE:
        out.append(number & 0x7F | _VARINT_MORE)
        number >>= _VARINT_BITS
    out.append(number)
    return bytes(out)


def _paired(audience: int, trigger: int) -> int:
    """Return one number for two (Cantor's pairing), which is small if both are."""
    total = audience + trigger
    return total * (total + 1) // 2 + trigger


def _unpaired(number: int) -> tuple[int, int]:
    total = (isqrt(8 * number + 1) - 1) // 2
    trigger = number - total * (total + 1) // 2
    return total - trigger, trigger


def lasting(text: bytes) -> bytes:
    """Return a stored record without the time when it may lapse."""
    return text[_LASTING_AT:] if text[:1] == bytes([LAPSING_FORMAT]) else text


def unpack(text: bytes | None) -> Record:
    """Read a stored record; None yields the empty record of an unknown profile.

    Raises:
        FormatUnknown: Another version of segrelay wrote it.
        IndexError: It is damaged.
    """
    if not text:
        return _NOT_KNOWN
    record = lasting(text)
    if record[0] < _MARKED:
        raise FormatUnknown(
            f"A profile's ledger has format {record[0]}, and this version of segrelay knows"
            f" {RECORD_FORMAT}: another version wrote it, and can go on from it."
        )
    return _unpacked(record)


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
    data_us = int.from_bytes(text[:_TIME_BYTES], "big") - _MARK
    position, end = _TIME_BYTES, len(text)
    items: dict[tuple[int, int], Item] = {}
    while position < end:
        number, position = _take_number(text, position)
        key, direction, raised, size = _read_head(number)
        delivered_us = data_us
        if size:
            begin, position = position, position + size
            delivered_us += int.from_bytes(text[begin:position], "big", signed=True)
        if direction is None:
            flags = text[position]
            known = delivered_us if flags & _DELIVERED else 0
            items[key], position = _take_more(text, position + 1, flags, known, raised=raised)
        else:
            items[key] = Item(direction, delivered_us, 0, 0, raised)
    if position != end:
        raise IndexError(_TOO_SHORT)
    return Record(data_us, items)


@lru_cache(_HEADS_REMEMBERED)
def _read_head(number: int) -> tuple[tuple[int, int], Direction | None, bool, int]:
    """Return an item's key, direction, raised flag and size of its time, as `_head` packs them."""
    direction = number >> _DIRECTION_AT & _DIRECTION_BITS
    return (
        _unpaired(number >> _KEY_AT),
        None if direction == _HOLDS_MORE else _DIRECTIONS[direction],
        bool(number >> _RAISED_AT & 1),
        number & _SIZE_BITS,
    )


def _take_more(
    text: bytes, position: int, flags: int, delivered_us: int, *, raised: bool
) -> tuple[Item, int]:
    """Return an item with the values that its flags announce, and the position behind them."""
    tried, position = _take(text, position, _TIME_BYTES if flags & _TRIED else 0)
    hashed, position = _take(text, position, _HASH_BYTES if flags & _HASHED else 0)
    replays, position = _take(text, position, _REPLAYS_BYTES if flags & _REPLAYED else 0)
    direction = _DIRECTIONS[flags & _DIRECTION_BITS]
    return Item(direction, delivered_us, tried, hashed, raised, replays), position


def _take(text: bytes, position: int, size: int) -> tuple[int, int]:
    return int.from_bytes(text[position : position + size], "big"), position + size


def _take_number(text: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = text[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < _VARINT_MORE:
            return number, position
        shift += _VARINT_BITS

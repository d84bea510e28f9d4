"""The ledger's record of one profile: its packed form, and what it says of an audience.

Packed: one byte of format, the time of the newest profile data sent (7 bytes), then an item per
audience and trigger: two numbers (LEB128), a byte of flags, the newest time delivered and the
newest time tried without an answer (7 bytes each, if any), for a change 4 bytes of its hash, and
how often what was tried had been replayed (a byte, if it had). A time delivered that is the one of
the newest profile data, as it is of most people, is a flag only: Redis keeps a record for each
person. Times are µs since 1970. The first format had eight bytes for the first of them, and not
that flag.

Redis keeps the record of somebody who is in no audience for the retention only: in front of it
stand another byte of format and the end of that time (ms, 6 bytes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import FormatUnknown

_FIRST_FORMAT: Final = 1
RECORD_FORMAT: Final = 3
_FORMAT_BYTE: Final = bytes([RECORD_FORMAT])
LAPSING_FORMAT: Final = 2
"""The first byte of a record that may lapse; `_lapsing.lua` writes it."""
_LAPSES_AT: Final = slice(1, 7)
_DIRECTIONS: Final = (Direction.ENTER, Direction.EXIT, Direction.CHANGE)
_NUMBER_OF: Final = {direction: number for number, direction in enumerate(_DIRECTIONS)}
_DIRECTION_BITS: Final = 3
_DELIVERED: Final = 4
_TRIED: Final = 8
_HASHED: Final = 16
_RAISED: Final = 32
_REPLAYED: Final = 64
_DELIVERED_WITH_DATA: Final = 128
_FIRST_ITEM_AT: Final = {_FIRST_FORMAT: 9, RECORD_FORMAT: 8}
_TIME_BYTES: Final = 7
_HASH_BYTES: Final = 4
_REPLAYS_BYTES: Final = 1
_VARINT_MORE: Final = 0x80
_KEYS_REMEMBERED: Final = 4_096

AUDIENCE_NAME: Final = "a|"
"""The prefix of slugs among the names to which the ledger's numbers belong."""

LastDelivered = tuple[Direction, int]
"""The newest delivery about a person and an audience: its direction and its time in µs."""


class Item(NamedTuple):
    """The newest times that one trigger delivered and tried for one audience of a profile.

    Attributes:
        delivered_us: Newest time delivered; 0 = none.
        tried_us: Newest time tried without a sure answer; 0 = none.
        profile_hash: Of the newest change delivered; 0 for other directions.
        raised: `delivered_us` was raised by a state event that sent nothing.
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
        items: By audience's and trigger's number.
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
    return (time_us, direction is Direction.EXIT) > (
        other_time_us,
        other_direction is Direction.EXIT,
    )


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
    """Return the packed text of a record."""
    data_us = record.data_us
    text = _FORMAT_BYTE + data_us.to_bytes(_TIME_BYTES, "big")
    for key, item in record.items.items():
        direction, delivered_us, tried_us, profile_hash, raised, tried_replays = item
        flags, values = _NUMBER_OF[direction], b""
        if delivered_us != data_us:
            if delivered_us:
                flags |= _DELIVERED
                values = delivered_us.to_bytes(_TIME_BYTES, "big")
        elif delivered_us:
            flags |= _DELIVERED_WITH_DATA
        if tried_us:
            flags |= _TRIED
            values += tried_us.to_bytes(_TIME_BYTES, "big")
        if profile_hash:
            flags |= _HASHED
            values += profile_hash.to_bytes(_HASH_BYTES, "big")
        if raised:
            flags |= _RAISED
        if tried_replays:
            flags |= _REPLAYED
            values += tried_replays.to_bytes(_REPLAYS_BYTES, "big")
        text += _packed_key(key) + _BYTES[flags] + values
    return text


def lapses_at_ms(text: bytes) -> int:
    """Return when the retention of a stored record ends (ms); 0 = it never lapses."""
    return int.from_bytes(text[_LAPSES_AT], "big") if text[:1] == bytes([LAPSING_FORMAT]) else 0


def lasting(text: bytes) -> bytes:
    """Return a stored record without the time when it may lapse."""
    return text[_LAPSES_AT.stop :] if text[:1] == bytes([LAPSING_FORMAT]) else text


def unpack(text: bytes | None) -> Record:
    """Read a stored record; None yields the empty record of an unknown profile.

    Raises:
        FormatUnknown: A newer version of segrelay wrote it.
        IndexError: It is damaged.
    """
    if not text:
        return _NOT_KNOWN
    record = lasting(text)
    begin = _FIRST_ITEM_AT.get(record[0])
    if begin is None:
        raise FormatUnknown(
            f"A profile's ledger has format {record[0]}, and this version of segrelay knows"
            f" {RECORD_FORMAT} and older ones: a newer version wrote it, and can go on from it."
        )
    return _unpacked(record, begin)


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


def _unpacked(text: bytes, begin: int) -> Record:
    data_us, position = int.from_bytes(text[1:begin], "big"), begin
    items: dict[tuple[int, int], Item] = {}
    while position < len(text):
        audience, position = _take_number(text, position)
        trigger, position = _take_number(text, position)
        flags = text[position]
        position += 1
        if flags & _DELIVERED_WITH_DATA:
            delivered = data_us
        else:
            delivered, position = _take(text, position, _TIME_BYTES if flags & _DELIVERED else 0)
        tried, position = _take(text, position, _TIME_BYTES if flags & _TRIED else 0)
        hashed, position = _take(text, position, _HASH_BYTES if flags & _HASHED else 0)
        replays, position = _take(text, position, _REPLAYS_BYTES if flags & _REPLAYED else 0)
        direction = _DIRECTIONS[flags & _DIRECTION_BITS]
        items[audience, trigger] = Item(
            direction, delivered, tried, hashed, bool(flags & _RAISED), replays
        )
    return Record(data_us, items)


def _take(text: bytes, position: int, size: int) -> tuple[int, int]:
    return int.from_bytes(text[position : position + size], "big"), position + size


_BYTES: Final = tuple(bytes([number]) for number in range(256))


@lru_cache(_KEYS_REMEMBERED)
def _packed_key(key: tuple[int, int]) -> bytes:
    """Return the packed numbers of an audience and a trigger, which most people share."""
    out = bytearray()
    for number in key:
        _put_number(out, number)
    return bytes(out)


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

"""An event, and the header with which its deliveries stand in a stream.

A stream's entry has two fields: `h`, the header (a JSON array), and `p`, what the trigger exports
of the profile: a JSON object with exactly one entry in `segment_events`, compressed above 2 KB.
"""

from __future__ import annotations

import zlib
from binascii import hexlify
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from segrelay.worker.contract.keys import DIGEST_BYTES, digest_of
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import FormatUnknown, PayloadRefused

ENTRY_FORMAT: Final = 1
COMPRESS_ABOVE_BYTES: Final = 2_048
_ZLIB_HEADER: Final = b"\x78"
_STATE: Final = 1
_SKIP_HOOK: Final = 2
_REPAIR: Final = 4
_AGAIN: Final = 8
_SEGMENT_EVENTS: Final = "segment_events"


@dataclass(slots=True)  # frozen, each would take three times as long: a file makes millions
class Event:
    """One profile entering or leaving one audience, or a change, at one time.

    Args:
        profile_key: `field:value` of the configured identity field.
        audience: The audience's slug.
        direction: The direction of the event.
        time_us: The time by the source's clock, in µs since 1970.
        profile: The profile, with exactly one entry in `segment_events`.
        state: True if it was made up by comparison (a row of a backfill, a sync).
        skip_hook: True if the destination should not start journeys for it.
        repair: True if it restores what a late request may have overwritten; never a duplicate.
    """

    profile_key: str
    audience: str
    direction: Direction
    time_us: int
    profile: dict[str, Any]
    state: bool = False
    skip_hook: bool = False
    repair: bool = False


class Header(NamedTuple):
    """The header of a delivery: the facts that the ledger needs without the profile.

    Attributes:
        digest: The digest of the profile's key, 10 bytes; see `keys.digest_of`.
        time_us: The time of the event, in µs since 1970.
        accepted_ms: The time when its producer took it up, by Redis' clock; kept over a replay.
        replays: The number of times that it came back from the dead letters.
        again: True if it is delivered also where it was delivered before, or is already there.
        damaged: True if the profile beside it is sealed and does not open. It is not written.
    """

    digest: bytes
    audience: str
    direction: Direction
    time_us: int
    state: bool
    skip_hook: bool
    repair: bool
    accepted_ms: int
    replays: int = 0
    again: bool = False
    damaged: bool = False

    @property
    def moment(self) -> tuple[int, bool]:
        """Return the sort key of events about an audience: the time; at equal times, exits last."""
        return self.time_us, self.direction is Direction.EXIT

    @property
    def is_broken(self) -> bool:
        """Say whether the entry can't be read: a header that stands for another one has no time."""
        return self.time_us == 0 or self.damaged


UNREADABLE: Final = Header(
    bytes(DIGEST_BYTES), "", Direction.CHANGE, 0, state=False, skip_hook=False, repair=False,
    accepted_ms=0,
)  # fmt: skip
"""The placeholder for a header that can't be decoded."""
UNKNOWN_FORMAT: Final = UNREADABLE._replace(accepted_ms=-1)
"""The placeholder for a header of a format that only another version of segrelay knows."""
_LATEST_US: Final = 1 << 56


def header_of(event: Event, *, accepted_ms: int) -> Header:
    """Return the header of an event's deliveries."""
    return Header(
        digest_of(event.profile_key),
        event.audience,
        event.direction,
        event.time_us,
        event.state,
        event.skip_hook,
        event.repair,
        accepted_ms,
    )


def has_id(profile: Mapping[str, Any]) -> bool:
    """Say whether the one segment event of a profile tells its audience's id."""
    told = profile[_SEGMENT_EVENTS][0].get("id")
    return bool(told.strip()) if isinstance(told, str) else told is not None


def with_id(profile: dict[str, Any], audience_id: str) -> dict[str, Any]:
    """Return a profile whose one segment event tells this id of its audience; "" = none."""
    entry = {name: value for name, value in profile[_SEGMENT_EVENTS][0].items() if name != "id"}
    told = {"id": audience_id} if audience_id else {}
    return {**profile, _SEGMENT_EVENTS: [told | entry]}


def encode_header(header: Header) -> bytes:
    """Return a header as the text of an entry's field `h`."""
    return encode_headers((header,))[0]


def encode_headers(headers: Iterable[Header]) -> list[bytes]:
    """Return the texts of headers.

    Of headers that follow each other and differ only in the person, as those of a backfill do, the
    rest is written once.
    """
    texts: list[bytes] = []
    shared: tuple[Any, ...] = ()
    begin = end = b""
    for header in headers:
        others = header[1:]
        if others != shared:
            shared = others
            begin, end = _around_digest(header)
        texts.append(begin + hexlify(header[0]) + end)
    return texts


def _around_digest(header: Header) -> tuple[bytes, bytes]:
    """Return the text of a header before and behind the digest."""
    _, audience, direction, time_us, state, hook, repair, accepted_ms, replays, again, _ = header
    flags = _STATE * state | _SKIP_HOOK * hook | _REPAIR * repair | _AGAIN * again
    return b'[%d,"' % ENTRY_FORMAT, b'",%b,"%b",%d,%d,%d,%d]' % (
        _json_text(audience),
        direction.encode(),
        time_us,
        flags,
        accepted_ms,
        replays,
    )


@lru_cache(maxsize=1_024)
def _json_text(audience: str) -> bytes:
    return orjson.dumps(audience)


_ALL_FLAGS: Final = _STATE | _SKIP_HOOK | _REPAIR | _AGAIN
_FLAGS: Final = tuple(
    tuple(bool(flags & flag) for flag in (_STATE, _SKIP_HOOK, _REPAIR, _AGAIN))
    for flags in range(_ALL_FLAGS + 1)
)
"""The meanings of a header's flags, by their number."""
_DIRECTIONS: Final = {direction.value: direction for direction in Direction}


def decode_header(text: bytes) -> Header:
    """Read a header from an entry's field `h`.

    Raises:
        FormatUnknown: Another version of segrelay wrote it.
        PayloadRefused: It is no header.
    """
    try:
        version, *rest = orjson.loads(text)
        if type(version) is int and version != ENTRY_FORMAT:
            raise FormatUnknown(
                f"An entry has format {version}, and this version of segrelay knows {ENTRY_FORMAT}:"
                " another version wrote it, and can deliver it."
            )
        digest, audience, direction, time_us, flags, accepted_ms, replays = rest
        state, skip_hook, repair, again = _FLAGS[flags & _ALL_FLAGS]
        return Header(
            bytes.fromhex(digest),
            audience,
            _DIRECTIONS[direction],
            time_us,
            state,
            skip_hook,
            repair,
            accepted_ms,
            replays,
            again,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise PayloadRefused("unreadable", "An entry's header can't be read.") from error


def read_header(text: bytes) -> Header:
    """Read a header from an entry's field `h`, or return `UNREADABLE` or `UNKNOWN_FORMAT`."""
    try:
        header = decode_header(text)
    except PayloadRefused:
        return UNREADABLE
    except FormatUnknown:
        return UNKNOWN_FORMAT
    return header if _is_right(header) else UNREADABLE


def _is_right(header: Header) -> bool:
    """Say whether the values of a header are possible; the ledger keeps times in seven bytes."""
    return (
        len(header.digest) == DIGEST_BYTES
        and type(header.audience) is str
        and type(header.time_us) is int
        and 0 < header.time_us < _LATEST_US
        and type(header.accepted_ms) is int
        and type(header.replays) is int
    )


def pack_profile(text: bytes) -> bytes:
    """Return a profile's JSON text as an entry's field `p` has it: compressed above 2 KB."""
    return zlib.compress(text, 1) if len(text) > COMPRESS_ABOVE_BYTES else text


def decode_profile(text: bytes) -> bytes:
    """Return a profile's JSON text from an entry's field `p`, which may be compressed.

    Raises:
        PayloadRefused: The compressed text is damaged.
    """
    if not text.startswith(_ZLIB_HEADER):
        return text
    try:
        return zlib.decompress(text)
    except zlib.error as error:
        raise PayloadRefused("unreadable", "An entry's profile can't be decompressed.") from error


def read_entry(fields: Mapping[bytes, bytes]) -> tuple[bytes, Header, bytes]:
    """Return an entry's field `h`, the header that it holds, and its field `p`, opened."""
    text = fields.get(b"h", b"")
    return text, *open_entry(text, fields.get(b"p", b""))


def open_entry(text: bytes, profile: bytes) -> tuple[Header, bytes]:
    """Return the header that an entry's field `h` holds, and its field `p`, opened.

    Where the profile does not open, it stays as it is. If it is damaged, the header says so, and
    whose the entry was; if it has another secret, the header is a placeholder.
    """
    header = read_header(text)
    if PROTECTION.secret_id:
        try:
            profile = PROTECTION.unseal(profile, header.digest)
        except FormatUnknown:
            header = UNKNOWN_FORMAT
        except PayloadRefused:
            header = header._replace(damaged=True)
    return header, profile

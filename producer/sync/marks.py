"""The mark of a member: `RUN UID HASH`, the last two optional.

RUN is the number of the run that saw it last, UID a digest of the profile's own id (two profiles
may have one identity), HASH one of what the triggers for changes export.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from producer.events.payloads import SEGMENT_EVENTS

UID: Final = "_uid"
_NONE: Final = b"-"
_HASH_BYTES: Final = 6


class Mark(NamedTuple):
    """A mark, as it was read or will be written."""

    run: int
    uid: bytes = _NONE
    content: bytes = _NONE

    def dumps(self) -> bytes:
        """Return the text that Redis keeps."""
        return b"%d %s %s" % self

    @classmethod
    def loads(cls, text: bytes) -> Mark:
        """Read what `dumps` wrote."""
        run, uid, content = text.split(b" ")
        return cls(int(run), uid, content)

    def differs(self, other: Mark) -> bool:
        """Say whether the content is known in both, and another."""
        return self.content != other.content and _NONE not in (self.content, other.content)


def uid_of(row: dict[str, Any]) -> bytes:
    """Return the digest of a profile's own id."""
    uid = row.get(UID)
    return b"%x" % zlib.crc32(str(uid).encode()) if uid is not None else _NONE


def content_hash(row: dict[str, Any], fields: Iterable[str] | None) -> bytes:
    """Return the digest of some fields of a row; None = of all."""
    wanted = row.keys() - {SEGMENT_EVENTS} if fields is None else fields
    content = {name: row[name] for name in wanted if name in row}
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=_HASH_BYTES).hexdigest().encode()

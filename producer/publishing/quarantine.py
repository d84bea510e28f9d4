"""The quarantine: keeps input that could not be placed, with the reason, for a person to look at.

A record is one event's payload (or a text that is none), known by a digest of its content, so that
what comes again is counted and not kept twice. Beyond 64 MiB the oldest go, and are counted.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import orjson
import structlog

from segrelay.producer.events.payloads import Refused
from segrelay.worker.contract import keys
from segrelay.worker.contract.protection import PROTECTION, QUARANTINE
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_fields
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script, run_each, run_script
from segrelay.worker.contract.words import LIVE
from segrelay.worker.errors import PayloadRefused, SealedAnew

log = structlog.get_logger()

CAP_BYTES: Final = 64 * 1024 * 1024
LARGEST_TEXT_BYTES: Final = 8 * 1024 * 1024
"""The longest text that is kept, in bytes; a longer one is recorded without its text."""

_KEEP: Final = load_script("quarantine", Path(__file__).parent)
_REMOVE: Final = load_script("quarantine_remove", Path(__file__).parent)
_KEYS: Final = tuple(
    keys.quarantine(part) for part in ("texts", "about", "seen", "times", "totals")
)
_TEXTS, _ABOUT, _SEEN, _TIMES, _TOTALS = _KEYS
_NEARLY_FULL: Final = 0.9
_WARNED_AGAIN_SECONDS: Final = 60.0
_IDS_A_CALL: Final = 1_000
_RECORDS_A_CALL: Final = 500
_BYTES_A_CALL: Final = 4 * 1024 * 1024
_ID_BYTES: Final = 8


class QuarantineRecord(NamedTuple):
    """A record of the quarantine without its text."""

    id: str
    reason: str
    audience: str
    message: str
    lane: str
    state: bool
    skip_hook: bool
    first_seen_ms: int
    last_seen_ms: int
    times: int


class QuarantineTotals(NamedTuple):
    """The size of the quarantine, and the number of records that it dropped.

    Attributes:
        dropped: The number of records that were dropped for lack of room.
        expired: The number of records that were dropped because they were kept for long enough.
    """

    records: int
    bytes: int
    dropped: int
    expired: int = 0


HowPublished = tuple[str, bool, bool]
"""The lane, whether the events were made up by comparison, and whether they start no journeys."""


class Quarantine:
    """The quarantine's records in Redis."""

    def __init__(self, client: Redis, *, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._warned_at = -_WARNED_AGAIN_SECONDS

    def keep(
        self,
        refused: Iterable[Refused],
        *,
        now_ms: int,
        cap_bytes: int,
        how: HowPublished = (LIVE, False, False),
    ) -> None:
        """Add what was refused to the quarantine; drop its oldest records if it takes too much.

        Args:
            refused: The refusals, each with a payload of one segment event, or a text that is no
                payload.
            now_ms: The time in ms since 1970.
            cap_bytes: The bytes that the quarantine may take.
            how: The way in which it was published, for when it is tried again.

        Raises:
            RedisUnavailable: Some may be kept and some not; keeping them again is harmless.
            SealedAnew: Redis has another secret, or lost it, since the caller claimed it.
        """
        secret = PROTECTION.secret_id.hex()
        for part in _parts(refused, how):
            call = ScriptCall(_KEYS, (now_ms, cap_bytes, secret, *part))
            ((used, dropped),) = run_each(self._client, _KEEP, [call], replicated=True)
            if used < 0:
                raise SealedAnew
            self._warn(used, dropped, cap_bytes)

    def totals(self) -> QuarantineTotals:
        pipe = self._client.pipeline(transaction=False)
        pipe.hlen(_ABOUT)
        pipe.hmget(_TOTALS, ["bytes", "dropped", "expired"])
        records, counts = pipe.execute()
        return QuarantineTotals(records, *(int(count or 0) for count in counts))

    def records(self, ids: Collection[str] = ()) -> Iterator[QuarantineRecord]:
        """Yield all records, or the named ones, in no order; some that come now may be missing."""
        known: set[bytes] = set()
        for found in [self._named(ids)] if ids else scan_fields(self._client, _ABOUT):
            about = {name: text for name, text in found if name not in known}
            known.update(about)
            names = [name.decode() for name in about]
            times, seen = self._times(names) if names else ((), ())
            for name, text, count, last in zip(names, about.values(), times, seen, strict=True):
                if last is not None:
                    yield _record(name, text, times=int(count or 1), last_seen_ms=int(last))

    def text(self, record_id: str) -> bytes | None:
        """Return the text of a record, or None if it does not exist or is damaged."""
        packed = cast("bytes | None", self._client.hget(_TEXTS, record_id))
        if packed is None:
            return None
        try:
            return zlib.decompress(PROTECTION.unseal(packed, QUARANTINE + record_id.encode()))
        except (PayloadRefused, zlib.error):
            return None

    def remove(self, ids: Iterable[str]) -> int:
        """Remove records; return how many there were."""
        removed = 0
        remaining = iter(ids)
        while part := list(islice(remaining, _IDS_A_CALL)):
            removed += run_script(self._client, _REMOVE, _KEYS, ("", "", *part))
        return removed

    def remove_expired(self, *, before_ms: int, most: int, until_ms: int) -> int:
        """Remove records that came last before a time; return how many there were.

        Args:
            before_ms: The time by Redis' clock.
            most: The largest number that is removed.
            until_ms: The end of the permission, by Redis' clock.
        """
        ids = self._client.zrangebyscore(_SEEN, "-inf", f"({before_ms}", start=0, num=most)
        if not ids:
            return 0
        removed: int = run_script(self._client, _REMOVE, _KEYS, (before_ms, until_ms, *ids))
        return removed

    def _named(self, ids: Iterable[str]) -> list[tuple[bytes, bytes]]:
        names = sorted(ids)
        texts = cast("list[bytes | None]", self._client.hmget(_ABOUT, names))
        return [
            (name.encode(), text)
            for name, text in zip(names, texts, strict=True)
            if text is not None
        ]

    def _times(self, names: list[str]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return how often each record came, and when last."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hmget(_TIMES, names)
        pipe.zmscore(_SEEN, names)
        times, seen = pipe.execute()
        return times, seen

    def _warn(self, used: int, dropped: int, cap_bytes: int) -> None:
        now = self._now()
        if used < _NEARLY_FULL * cap_bytes and not dropped:
            return
        if now - self._warned_at < _WARNED_AGAIN_SECONDS:
            return
        self._warned_at = now
        log.warning("quarantine.nearly_full", bytes=used, cap_bytes=cap_bytes, dropped=dropped)


def _parts(refused: Iterable[Refused], how: HowPublished) -> Iterator[Sequence[str | bytes]]:
    """Split refusals into calls of limited size; yield the arguments of each call.

    The id of a record is a digest of its content and of how it was published. Its JSON has no
    beginning, `[first seen,`, which `quarantine.lua` adds.
    """
    lane, state, skip_hook = how
    begin = f"{lane}|{state:d}{skip_hook:d}|".encode()
    part: list[str | bytes] = []
    size = 0
    for one in refused:
        text = one.content if len(one.content) <= LARGEST_TEXT_BYTES else b""
        record_id = PROTECTION.digest(begin + one.content, _ID_BYTES).hex()
        place = QUARANTINE + record_id.encode()
        packed = PROTECTION.seal(zlib.compress(text, 1), place)
        message = PROTECTION.seal_text(one.message, place)
        about = orjson.dumps([one.reason, one.audience, message, *how])[1:]
        part += (record_id, about, packed)
        size += len(packed)
        if size > _BYTES_A_CALL or len(part) >= 3 * _RECORDS_A_CALL:
            yield part
            part, size = [], 0
    if part:
        yield part


def _record(record_id: str, about: bytes, *, times: int, last_seen_ms: int) -> QuarantineRecord:
    first_seen_ms, reason, audience, message, *told = orjson.loads(about)[:7]
    message = PROTECTION.unseal_text(message, QUARANTINE + record_id.encode())
    seen = {"first_seen_ms": first_seen_ms, "last_seen_ms": last_seen_ms, "times": times}
    return QuarantineRecord(record_id, reason, audience, message, *told, **seen)

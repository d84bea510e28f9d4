"""The profiles behind digests: the ledger has only digests, and an exit needs a profile.

Who is known by name: members that a sync remembers, and whoever stands in the sources that a person
names: `lytics:SLUG`, or files as backfills read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from redis import Redis

from ops.state.partitions import all_partitions
from ops.state.waiting import find_streams, read_entries
from producer.events.identity import ID, PAYLOAD_ID, profile_key
from producer.sources.blocks import blocks_of
from producer.sources.opening import opened
from producer.sources.scans import audience_of, look_at, scan_rows
from producer.sync.book import Mark, SyncBook
from producer.sync.opening import columns_of
from worker.contract.events import decode_profile
from worker.contract.keys import digest_of
from worker.contract.redis.claim import learn_numbering
from worker.contract.settings import Settings
from worker.contract.words import Direction
from worker.errors import PayloadRefused


class Person(NamedTuple):
    """A person with the key of their profile; a ledger holds only the digest of that key.

    Attributes:
        row: The profile as the source has it; of a sync's member the identity alone.
        as_of_us: When the source was right: the person was in the audience then; 0 = the source
            does not say that, only who the person is.
    """

    key: str
    row: dict[str, Any]
    as_of_us: int = 0

    @property
    def digest(self) -> bytes:
        """Return the digest under which the ledger keeps the person."""
        return digest_of(self.key)


def remembered(client: Redis, settings: Settings, audience: str) -> Iterator[Person]:
    """Yield the people that syncs of an audience know by name; some come several times.

    Of whom no run has seen yet, it is not said that they are members.
    """
    partitions = learn_numbering(client, settings)
    for name in settings.sync:
        book = SyncBook(client, name, partitions)
        state = book.peek()
        if state.audience == audience:
            as_of_us = int(state.last.get("at_us") or 0)
            for place in book.places(state.known or state.destinations):
                for key, mark in book.members(place):
                    yield Person(key, alone(key), 0 if Mark.loads(mark).is_name else as_of_us)


def waiting_in(client: Redis, settings: Settings, audience: str) -> Iterator[Person]:
    """Yield the people whose entrance into an audience waits to be delivered."""
    for stream in find_streams(client, all_partitions(client, settings)):
        for entry in read_entries(client, stream):
            header = entry.header
            if header and (header.audience, header.direction) == (audience, Direction.ENTER):
                with suppress(PayloadRefused, orjson.JSONDecodeError):
                    row = orjson.loads(decode_profile(entry.profile))
                    key = profile_key(row, settings.delivery.identity)
                    yield Person(key, row, header.time_us)


def alone(key: str) -> dict[str, Any]:
    """Return a profile that holds nothing but the identity."""
    field, _, value = key.partition(":")
    return {PAYLOAD_ID if field == ID else field: value}


def named_in(settings: Settings, sources: Sequence[str], now_us: int = 0) -> Iterator[Person]:
    """Yield the people in files or scans; rows without an identity are skipped.

    Args:
        settings: The configuration.
        sources: `lytics:SLUG`, or files.
        now_us: Redis' clock, if the sources say who is in the audience: a scan is right as of its
            begin, a file as of its last change. 0 = they say only who people are.
    """
    for source in sources:
        as_of_us = _as_of_us(settings, source, now_us) if now_us else 0
        for row in _rows(settings, source):
            try:
                key = profile_key(row, settings.delivery.identity)
            except PayloadRefused:
                continue
            yield Person(key, row, as_of_us)


def _as_of_us(settings: Settings, source: str, now_us: int) -> int:
    audience = audience_of(source)
    if audience:
        return look_at(settings, audience, now_us).at_us
    try:
        return min(now_us, Path(source).expanduser().stat().st_mtime_ns // 1_000)
    except OSError:
        return now_us


def _rows(settings: Settings, source: str) -> Iterator[dict[str, Any]]:
    audience = audience_of(source)
    if audience:
        payloads = scan_rows(settings, audience)
        yield from (payload.value for payload in payloads)
        return
    columns = columns_of(settings)
    with opened(source, with_digest=False) as file:
        for block in blocks_of(file, columns):
            for payload in block.payloads():
                if not payload.error and isinstance(payload.value, dict):
                    yield payload.value

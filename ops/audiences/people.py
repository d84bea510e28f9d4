"""Names for digests: the ledger knows people by a digest only, and an exit needs who it is.

Who is known by name: members that a sync remembers, and whoever stands in the sources that a person
names: `lytics:SLUG`, or files as backfills read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from redis import Redis

from ops.state.partitions import partition_count
from producer.events.identity import ID, PAYLOAD_ID, profile_key
from producer.sources.blocks import blocks_of
from producer.sources.opening import opened
from producer.sources.scans import audience_of, scan_rows
from producer.sync.book import SyncBook
from producer.sync.opening import columns_of
from worker.contract.keys import digest_of
from worker.contract.settings import Settings
from worker.errors import PayloadRefused


class Person(NamedTuple):
    """Somebody who is known by name.

    Attributes:
        row: The profile as the source has it; of a sync's member the identity alone.
    """

    key: str
    row: dict[str, Any]

    @property
    def digest(self) -> bytes:
        """Return under which digest the ledger knows the person."""
        return digest_of(self.key)


def remembered(client: Redis, settings: Settings, audience: str) -> Iterator[Person]:
    """Yield the members that syncs of an audience remember; some come several times."""
    partitions = partition_count(client, settings)
    for name in settings.sync:
        book = SyncBook(client, name, partitions)
        state = book.peek()
        if state.audience == audience:
            for place in book.places(state.known or state.destinations):
                for key, _ in book.members(place):
                    yield Person(key, alone(key))


def alone(key: str) -> dict[str, Any]:
    """Return the profile of somebody of whom nothing but the identity is known."""
    field, _, value = key.partition(":")
    return {PAYLOAD_ID if field == ID else field: value}


def named_in(settings: Settings, sources: Sequence[str]) -> Iterator[Person]:
    """Yield the people of sources; rows without an identity are passed over.

    Raises:
        UsageWrong: A file is missing or can't be read.
        LyticsUnavailable: Lytics can't be read now.
    """
    for source in sources:
        for row in _rows(settings, source):
            try:
                key = profile_key(row, settings.delivery.identity)
            except PayloadRefused:
                continue
            yield Person(key, row)


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

"""Orphaned deliveries, which no worker delivers, and the commands that move them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from redis import Redis

from ops.state.snapshots import PartitionSnapshot, WaitingStream
from worker.adapters.redis.addresses import former_names, read_renamed
from worker.contract.events import Header, decode_header
from worker.contract.keys import PartitionKeys, stream_name
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.contract.triggers.meaning import Meaning
from worker.errors import FormatUnknown, PayloadRefused


def is_orphan(settings: Settings, place: PartitionKeys, trigger: str) -> bool:
    """Say whether no worker would deliver anything of this trigger's streams in a partition."""
    known = settings.triggers.get(trigger)
    return known is None or known.destination != place.destination


def count_orphans(
    settings: Settings, place: PartitionKeys, stream: WaitingStream, meanings: Mapping[str, Meaning]
) -> int:
    """Return the number of entries of a stream that no worker delivers, among those looked at."""
    if is_orphan(settings, place, stream.trigger):
        return stream.length
    if not stream.unwanted:
        return 0
    return min(stream.length, stream.unwanted.get(meanings[stream.trigger].digest, 0))


def mending_commands(
    client: Redis,
    settings: Settings,
    found: Iterable[PartitionSnapshot],
    meanings: Mapping[str, Meaning],
) -> dict[str, str]:
    """Return the command that moves orphaned deliveries, by trigger."""
    names = {old: new for new, old in former_names(client, settings).items()}
    names |= read_renamed(client)
    samples: dict[str, tuple[PartitionKeys, str]] = {}
    for one in found:
        for stream in one.waiting:
            if count_orphans(settings, one.place, stream, meanings):
                name = stream_name(stream.lane, stream.trigger)
                samples.setdefault(stream.trigger, (one.place, name))
    return {
        trigger: f"segrelay destination rename {place.destination} {names[place.destination]}"
        if place.destination in names
        else _command(trigger, _first_header(client, place, name), meanings)
        for trigger, (place, name) in samples.items()
    }


def _first_header(client: Redis, place: PartitionKeys, name: str) -> Header | None:
    with redis_errors():
        rows: Any = client.xrange(place.stream(name), count=1)
    try:
        return decode_header(rows[0][1].get(b"h", b"")) if rows else None
    except (PayloadRefused, FormatUnknown):
        return None


def _command(trigger: str, header: Header | None, meanings: Mapping[str, Meaning]) -> str:
    """Return the command for a trigger whose first orphan has this header."""
    wanting = [one.trigger for one in meanings.values() if header and one.wants(header)]
    if not wanting:
        return f"segrelay discard --trigger {trigger}"
    target = trigger if trigger in wanting else wanting[0]
    return f"segrelay trigger move {trigger} {target}"

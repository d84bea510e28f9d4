"""Snapshots of partitions: their counts and their waiting streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import Redis

from ops.state import scripts
from worker.contract.keys import PartitionKeys, split_stream_name
from worker.contract.redis.scripts import ScriptCall


class WaitingStream(NamedTuple):
    """A stream that is not empty.

    Attributes:
        since_ms: The time of its first entry, by Redis' clock.
        unwanted: By the digest of a meaning: how many entries a trigger that means this does not
            want, as far as a worker has looked.
    """

    lane: str
    trigger: str
    length: int
    since_ms: int
    unwanted: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PartitionSnapshot:
    """One partition at one moment.

    Args:
        now_ms: Redis' clock.
        counts: The counts as in Redis, such as `skipped|vip-enter|duplicate`.
    """

    place: PartitionKeys
    now_ms: int
    counts: Mapping[str, int]
    waiting: tuple[WaitingStream, ...]
    open_notes: int
    letters: int


def snapshots(client: Redis, places: Sequence[PartitionKeys]) -> list[PartitionSnapshot]:
    """Return a snapshot of each partition; each is atomic.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    calls = [
        ScriptCall((k.counts, k.streams, k.open, k.letters, k.orphans), (k.tag,)) for k in places
    ]
    answers = scripts.run(client, "look", calls)
    return [_snapshot(place, answer) for place, answer in zip(places, answers, strict=True)]


def _snapshot(place: PartitionKeys, answer: Sequence[Any]) -> PartitionSnapshot:
    now_ms, flat, open_notes, letters, orphans, *streams = answer
    return PartitionSnapshot(
        place,
        now_ms,
        {name.decode(): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)},
        tuple(_waiting(streams, orphans)),
        open_notes,
        letters,
    )


def _waiting(streams: Sequence[Any], orphans: Sequence[Any]) -> Iterator[WaitingStream]:
    unwanted: dict[str, dict[str, int]] = {}
    for field_name, count in zip(orphans[::2], orphans[1::2], strict=True):
        name, _, digest = field_name.decode().removesuffix("|n").rpartition("|")
        if field_name.endswith(b"|n"):
            unwanted.setdefault(name, {})[digest] = int(count)
    for stored, length, first in zip(streams[::3], streams[1::3], streams[2::3], strict=True):
        name = stored.decode()
        since_ms = int(first.partition(b"-")[0] or 0)
        yield WaitingStream(*split_stream_name(name), length, since_ms, unwanted.get(name, {}))

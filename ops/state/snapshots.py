"""Snapshots of partitions: their counts and their waiting streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import add
from typing import Any, Final, NamedTuple

import orjson
from redis import Redis

from ops.state import scripts
from worker.contract.keys import PartitionKeys, split_stream_name
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import digest

_ANSWERS: Final = 4
"""Answers for each partition: to MULTI, to both commands, and to EXEC."""


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
        counts: Fields as `skipped|vip-enter|duplicate`, each before its number; see `sum_counts`.
    """

    place: PartitionKeys
    now_ms: int
    counts: Sequence[bytes]
    waiting: tuple[WaitingStream, ...]
    open_notes: int
    letters: int


def snapshots(client: Redis, places: Sequence[PartitionKeys]) -> list[PartitionSnapshot]:
    """Return a snapshot of each partition; each is atomic."""
    text = scripts.source("look")
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        pipe.script_load(text)
        for k in places:
            keys = (k.streams, k.open, k.letters, k.orphans)
            look = ("EVALSHA", digest(text), len(keys), *keys, k.tag)
            # A script would have to copy the counts twice, which takes Redis four times as long.
            for words in (("MULTI",), ("HGETALL", k.counts), look, ("EXEC",)):
                pipe.execute_command(*words)  # type: ignore[no-untyped-call]
        answers: list[Any] = pipe.execute()[_ANSWERS::_ANSWERS]
        for answer in answers:
            _raise_first_error(answer)
    return [_snapshot(place, *answer) for place, answer in zip(places, answers, strict=True)]


def sum_counts(found: Iterable[PartitionSnapshot]) -> dict[str, dict[str, int]]:
    """Return the counts of each destination, over its partitions."""
    totals: dict[str, dict[bytes, int]] = {}
    for one in found:
        total = totals.setdefault(one.place.destination, {})
        names, counts = one.counts[::2], _numbers(one.counts[1::2])
        # A field stands in a partition once, so each sum is read before it is written. With 400
        # triggers these are tens of thousands of sums, and a loop takes twice as long.
        sums = map(add, map(total.get, names, repeat(0)), counts)
        total.update(zip(names, sums, strict=True))
    return {
        destination: {name.decode(): count for name, count in total.items()}
        for destination, total in totals.items()
    }


def _numbers(texts: Iterable[bytes]) -> list[int]:
    """Return whole numbers; as one JSON they are read many times faster than one by one."""
    numbers: list[int] = orjson.loads(b"[%b]" % b",".join(texts))
    return numbers


def _raise_first_error(answers: Iterable[Any]) -> None:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer


def _snapshot(
    place: PartitionKeys, counts: Sequence[bytes], answer: Sequence[Any]
) -> PartitionSnapshot:
    now_ms, open_notes, letters, orphans, *streams = answer
    waiting = tuple(_waiting(streams, orphans))
    return PartitionSnapshot(place, now_ms, counts, waiting, open_notes, letters)


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

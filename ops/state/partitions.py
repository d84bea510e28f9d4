"""The partitions in Redis, also of destinations that are not configured any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from operator import add
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from segrelay.ops.state import opened
from segrelay.worker.contract.keys import PartitionKeys, split_stream_name, stream_name
from segrelay.worker.contract.redis.claim import read_names
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import digest
from segrelay.worker.contract.settings import Settings

_Asked = TypeVar("_Asked")


def known_destinations(client: Redis, settings: Settings) -> list[str]:
    """Return the destinations that are configured or that Redis knows, each once."""
    return sorted({*settings.destinations, *read_names(client)})


def all_partitions(
    client: Redis, settings: Settings, destinations: Iterable[str] = ()
) -> list[PartitionKeys]:
    """Return every partition of these destinations, or of all."""
    names = list(destinations) or known_destinations(client, settings)
    numbers = range(settings.redis.partitions)
    return [PartitionKeys(name, number) for name in names for number in numbers]


def ask_each(
    client: Redis, asked: Iterable[_Asked], *questions: Callable[[Any, _Asked], object]
) -> list[Any]:
    """Ask Redis questions about each partition or item in one round trip; return all answers."""
    pipe = client.pipeline(transaction=False)
    for each in asked:
        for question in questions:
            question(pipe, each)
    return pipe.execute()


def destinations_of(partitions: Iterable[PartitionKeys]) -> list[str]:
    """Return the destinations of partitions, in their order."""
    return list(dict.fromkeys(partition.destination for partition in partitions))


_LOOKED_AT_ONCE: Final = 4
"""Number of partitions in one round trip: Redis serves nobody else until it has looked at them, and
one with hundreds of streams takes it 5 ms."""
_ANSWERS: Final = 4
"""Number of answers for each partition: to MULTI, to both commands, and to EXEC."""


class Stream(NamedTuple):
    """A stream of a partition in which deliveries wait, or waited a moment ago.

    Attributes:
        since_ms: The time of its first entry, by Redis' clock.
        last_id: The id of the last entry that had come when it was measured; "" = it was not.
    """

    partition: PartitionKeys
    lane: str
    trigger: str
    length: int
    since_ms: int = 0
    last_id: str = ""

    @property
    def name(self) -> str:
        """Return the name of the stream in its partition: `lane|trigger`."""
        return stream_name(self.lane, self.trigger)


class PartitionSnapshot(NamedTuple):
    """The counts and waiting streams of one partition at one moment.

    Attributes:
        now_ms: Redis' clock.
        counts: Fields as `skipped|vip-enter|duplicate`, each before its number; see `sum_counts`.
    """

    partition: PartitionKeys
    now_ms: int
    counts: Sequence[bytes]
    waiting: tuple[Stream, ...]
    intents_in_doubt: int
    dead_letters: int


def snapshots(client: Redis, partitions: Sequence[PartitionKeys]) -> list[PartitionSnapshot]:
    """Return a snapshot of each partition; each is atomic."""
    return [
        one
        for first in range(0, len(partitions), _LOOKED_AT_ONCE)
        for one in _snapshots(client, partitions[first : first + _LOOKED_AT_ONCE])
    ]


def _snapshots(client: Redis, partitions: Sequence[PartitionKeys]) -> list[PartitionSnapshot]:
    text = opened.source("look")
    pipe = client.pipeline(transaction=False)
    pipe.script_load(text)
    for k in partitions:
        keys = (k.streams, k.open, k.dead_letters)
        look = ("EVALSHA_RO", digest(text), len(keys), *keys, k.tag)
        # A script would have to copy the counts twice, which takes Redis four times as long.
        for words in (("MULTI",), ("HGETALL", k.counts), look, ("EXEC",)):
            pipe.execute_command(*words)
    answers: list[Any] = pipe.execute()[_ANSWERS::_ANSWERS]
    for each in chain.from_iterable(answers):
        if isinstance(each, Exception):
            raise each
    return [
        PartitionSnapshot(
            partition, now_ms, counts, tuple(_waiting(partition, streams)), open_intents, letters
        )
        for partition, (counts, (now_ms, open_intents, letters, *streams)) in zip(
            partitions, answers, strict=True
        )
    ]


def sum_counts(found: Iterable[PartitionSnapshot]) -> dict[str, dict[str, int]]:
    """Return the counts of each destination, over its partitions."""
    totals: dict[str, dict[bytes, int]] = {}
    for one in found:
        total = totals.setdefault(one.partition.destination, {})
        # As one JSON, numbers are read many times faster than one by one.
        names, counts = one.counts[::2], orjson.loads(b"[%b]" % b",".join(one.counts[1::2]))
        # A field stands in a partition once, so each sum is read before it is written. With 400
        # triggers these are tens of thousands of sums, and a loop takes twice as long.
        sums = map(add, map(total.get, names, repeat(0)), counts)
        total.update(zip(names, sums, strict=True))
    return {
        destination: {name.decode(): count for name, count in total.items()}
        for destination, total in totals.items()
    }


def _waiting(partition: PartitionKeys, streams: Sequence[Any]) -> Iterator[Stream]:
    for stored, length, first in zip(streams[::3], streams[1::3], streams[2::3], strict=True):
        name = stored.decode()
        since_ms = int(first.partition(b"-")[0] or 0)
        lane, trigger = split_stream_name(name)
        yield Stream(partition, lane, trigger, length, since_ms)

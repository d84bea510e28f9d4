"""The partitions in Redis, also of destinations that are not configured any more.

Their counts are added up by trigger, job, lane and destination. `accepted = delivered + skipped +
dead + discarded + waiting` holds in each partition at every moment, so it holds in the sums.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from operator import add
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from segrelay.ops.state import opened
from segrelay.worker.contract.keys import (
    PartitionKeys,
    split_stream_name,
    stream_name,
    without_lane,
)
from segrelay.worker.contract.outcomes import (
    ACCEPTED,
    ANSWERED,
    ASKED,
    CARRIED,
    DELIVERY_BOUNDS,
    EXPIRED,
    OCCURRED,
    REQUEST_BOUNDS,
    TOOK,
    Histogram,
    prefix_of_delivery,
)
from segrelay.worker.contract.redis.claim import read_names
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import BACKFILL, LIVE, job_of_lane, kind_of_lane

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


def read_stream(
    client: Redis, key: str, first: str, last: str, at_once: int
) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    """Yield the entries of a stream from one id to another, as XRANGE takes them, in steps."""
    while True:
        rows: Any = client.xrange(key, first, last, count=at_once)
        yield from rows
        if len(rows) < at_once:
            return
        first = f"({rows[-1][0].decode()}"


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
        now_ms: The time by Redis' clock.
        counts: The fields, such as `skipped|vip-enter|duplicate`, each followed by its number; see
            `sum_counts`.
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
    for k in partitions:
        keys = (k.streams, k.open, k.dead_letters)
        look = ("EVAL_RO", text, len(keys), *keys, k.tag)
        # A script would have to copy the counts twice, which takes Redis four times as long.
        for words in (("MULTI",), ("HGETALL", k.counts), look, ("EXEC",)):
            pipe.execute_command(*words)
    answers: list[Any] = pipe.execute()[_ANSWERS - 1 :: _ANSWERS]
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


KINDS: Final = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")
OUTCOMES: Final = KINDS[:-1]
REASONED: Final = ("skipped", "dead")
OF_REQUESTS: Final = ("requests", "unanswered", "resent", "shared_identity")
_MEASURES: Final = frozenset(
    {ANSWERED, ASKED, TOOK, *(one.partition("|")[0] for one in (CARRIED, EXPIRED))}
)
_JOB: Final = "job"


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of deliveries, and of the requests that carried them."""

    accepted: int = 0
    delivered: int = 0
    skipped: int = 0
    dead: int = 0
    discarded: int = 0
    waiting: int = 0
    requests: int = 0
    unanswered: int = 0
    resent: int = 0
    shared_identity: int = 0
    skipped_by_reason: Mapping[str, int] = field(default_factory=dict)
    dead_by_reason: Mapping[str, int] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        """Return the number of deliveries that have an outcome."""
        return self.delivered + self.skipped + self.dead + self.discarded

    def of(self, kind: str) -> int:
        """Return the count of one of `KINDS` or `OF_REQUESTS`."""
        found: int = getattr(self, kind)
        return found

    def by_reason(self, kind: str) -> Mapping[str, int]:
        """Return the counts of one of `REASONED` by reason."""
        return self.skipped_by_reason if kind == REASONED[0] else self.dead_by_reason


@dataclass(slots=True)
class LaneWait:
    """The deliveries that wait in a lane; `oldest_ms` by Redis' clock."""

    deliveries: int
    oldest_ms: int

    def add(self, stream: Stream) -> None:
        """Add the deliveries of a stream."""
        self.deliveries += stream.length
        self.oldest_ms = min(self.oldest_ms, stream.since_ms)


@dataclass(frozen=True, slots=True)
class Requests:
    """The answers to the requests of a destination, and the times that they and deliveries took.

    Args:
        users: The number of user objects in all requests.
        delivery_times: The times of deliveries, by kind of lane, and by the beginning that they are
            counted from.
    """

    by_status: Mapping[str, int]
    users: int
    times: Histogram
    delivery_times: Mapping[str, Mapping[str, Histogram]]


_Tallies = defaultdict[str, Counter[str]]


def _parts() -> defaultdict[str, _Tallies]:
    return defaultdict(lambda: defaultdict(Counter))


@dataclass(slots=True)
class Totals:
    """The counts of all partitions, added up.

    Args:
        by_trigger: The tallies by trigger and kind of lane: numbers by outcome, or by outcome and
            reason as in `skipped|asserted`.
        by_job: The tallies by job and destination: numbers by outcome.
        waits: The deliveries that wait, by trigger and kind of lane.
        lanes: The deliveries that wait, by lane; each job has a lane.
        measures: The counts of requests and times by destination, as
            `segrelay.worker.contract.outcomes` names them.
    """

    now_ms: int = 0
    by_trigger: defaultdict[str, _Tallies] = field(default_factory=_parts)
    by_job: defaultdict[str, _Tallies] = field(default_factory=_parts)
    waits: dict[str, dict[str, LaneWait]] = field(default_factory=dict)
    lanes: dict[str, LaneWait] = field(default_factory=dict)
    measures: dict[str, dict[str, int]] = field(default_factory=dict)
    dead_letters: Counter[str] = field(default_factory=Counter)
    dropped_fields: Counter[str] = field(default_factory=Counter)
    orphans: Counter[str] = field(default_factory=Counter)
    oldest_live_ms: dict[str, int] = field(default_factory=dict)
    intents_in_doubt: int = 0

    @property
    def oldest_waiting_seconds(self) -> float | None:
        """Return the age of the oldest waiting delivery; None = nothing waits."""
        oldest_ms = min((one.oldest_ms for one in self.lanes.values()), default=None)
        return None if oldest_ms is None else max(0.0, (self.now_ms - oldest_ms) / 1_000)

    @property
    def expired(self) -> int:
        """Return how many dead letters were discarded because of their age."""
        return sum(counts.get(EXPIRED, 0) for counts in self.measures.values())

    def of_all(self) -> Counts:
        """Return the counts over all triggers."""
        return counts_of(*chain.from_iterable(map(dict.values, self.by_trigger.values())))

    def lanes_of(self, trigger: str) -> dict[str, Counts]:
        """Return the outcomes of a trigger's deliveries in each kind of lane."""
        counted = self.by_trigger[trigger]
        lanes = [LIVE, *([BACKFILL] if any(counted[BACKFILL].values()) else [])]
        return {lane: counts_of(counted[lane]) for lane in lanes}

    def requests_of(self, destination: str) -> Requests:
        """Return what is known of the requests of a destination."""
        counts = self.measures.get(destination, {})
        statuses = {
            name.partition("|")[2]: count
            for name, count in sorted(counts.items())
            if name.startswith(f"{ANSWERED}|")
        }
        times = {
            kind: {
                since: Histogram.read(counts, prefix_of_delivery(kind, since), DELIVERY_BOUNDS)
                for since in (OCCURRED, ACCEPTED)
            }
            for kind in (LIVE, BACKFILL)
        }
        asked = Histogram.read(counts, ASKED, REQUEST_BOUNDS)
        return Requests(statuses, counts.get(CARRIED, 0), asked, times)


def largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts that are not 0, the largest first."""
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    return {name: count for name, count in ordered if count}


def counts_of(*tallies: Mapping[str, int]) -> Counts:
    """Return the sum of tallies, which are by kind or by kind and reason."""
    tally: Counter[str] = Counter()
    for each in tallies:
        tally.update(each)
    reasons: dict[str, dict[str, int]] = {kind: {} for kind in REASONED}
    for name, count in tally.items():
        kind, bar, reason = name.partition("|")
        if bar and count:
            reasons[kind][reason] = count
    plain = {kind: tally.get(kind, 0) for kind in (*KINDS, *OF_REQUESTS)}
    plain |= {kind: sum(found.values()) for kind, found in reasons.items() if found}
    skipped, dead = (largest_first(reasons[kind]) for kind in REASONED)
    return Counts(**plain, skipped_by_reason=skipped, dead_by_reason=dead)


def is_orphan(settings: Settings, partition: PartitionKeys, trigger: str) -> bool:
    """Say whether no worker would deliver anything of this trigger's streams in a partition."""
    known = settings.triggers.get(trigger)
    return known is None or known.destination != partition.destination


def add_up(found: Sequence[PartitionSnapshot], settings: Settings) -> Totals:
    """Add up the counts and the waiting deliveries of partitions."""
    totals = Totals()
    for destination, counts in sum_counts(found).items():
        for name, count in counts.items():
            _add_count(totals, destination, name, count)
    for one in found:
        totals.now_ms = max(totals.now_ms, one.now_ms)
        totals.intents_in_doubt += one.intents_in_doubt
        totals.dead_letters[one.partition.destination] += one.dead_letters
        for stream in one.waiting:
            is_gone = is_orphan(settings, stream.partition, stream.trigger)
            _add_waiting(totals, stream, stream.length if is_gone else 0)
    return totals


def _add_count(totals: Totals, destination: str, field_name: str, count: int) -> None:
    lane, outcome = without_lane(field_name)
    kind, name, *rest = outcome.split("|")
    if kind == _JOB:
        if len(rest) == 1:  # what follows a second word is a part of it
            totals.by_job[name][destination][rest[0]] += count
        return
    if kind in _MEASURES:
        totals.measures.setdefault(destination, {})[field_name] = count
        return
    if kind == "dropped":
        totals.dropped_fields["|".join(rest)] += count
        return
    counted = f"{kind}|{rest[0]}" if kind in REASONED else kind
    totals.by_trigger[name][lane][counted] += count


def _add_waiting(totals: Totals, stream: Stream, orphans: int) -> None:
    totals.by_trigger[stream.trigger][kind_of_lane(stream.lane)]["waiting"] += stream.length
    if job := job_of_lane(stream.lane):
        totals.by_job[job][stream.partition.destination]["waiting"] += stream.length
    if orphans:
        totals.orphans[stream.trigger] += orphans
    if not stream.length:
        return
    if not orphans and stream.lane == LIVE:
        known = totals.oldest_live_ms.get(stream.trigger, stream.since_ms)
        totals.oldest_live_ms[stream.trigger] = min(known, stream.since_ms)
    kinds = totals.waits.setdefault(stream.trigger, {})
    for lanes, lane in ((totals.lanes, stream.lane), (kinds, kind_of_lane(stream.lane))):
        lanes.setdefault(lane, LaneWait(0, stream.since_ms)).add(stream)

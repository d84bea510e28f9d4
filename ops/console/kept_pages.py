"""The pages Quarantine and Waiting: what could not be placed, and what waits for its turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from segrelay.ops.console.acts import act_in
from segrelay.ops.console.app import Asked, Console, Page, address_of
from segrelay.ops.console.look import MOST_SCANNED, Look, scan
from segrelay.ops.console.revealing import note_reveal
from segrelay.ops.kept import Filter, KeptOptions
from segrelay.ops.quarantine import group_of
from segrelay.ops.state.partitions import Stream, all_partitions
from segrelay.ops.state.waiting import (
    Choice,
    WaitingEntry,
    find_streams,
    is_orphan,
    is_unwanted,
    read_entries,
)
from segrelay.ops.status.standing import Standing
from segrelay.producer.publishing.quarantine import QuarantineRecord
from segrelay.worker.adapters.redis.shared_keys import read_scopes
from segrelay.worker.contract.words import Refusal, job_of_lane
from segrelay.worker.errors import UsageWrong

PAGE: Final = 50
_FILTERS: Final = ("audience", "kind", "since", "until")


def quarantine(console: Console, asked: Asked) -> Page:
    """Show the records that could not be placed, by audience and reason, and one by one."""
    look = console.look
    filters = {name: asked.get(name) for name in _FILTERS}
    store = look.quarantine()
    options = KeptOptions(**filters)
    found = scan(store.find(options.chosen(look.client, look.settings, None)))
    records = sorted(found.found, key=lambda one: -one.last_seen_ms)
    number = asked.number("page", 1, 40)
    values = {
        "totals": store.quarantine.totals(),
        "groups": list(_groups(records, look)),
        "records": records[PAGE * (number - 1) : PAGE * number],
        "count": found.count,
        "page": number,
        "has_more": len(records) > PAGE * number,
        "filters": filters,
        "is_filtered": any(filters.values()),
        "reasons": sorted(Refusal),
    }
    return Page("quarantine.html", "Quarantine", values)


def _groups(records: Iterable[QuarantineRecord], look: Look) -> Iterator[Mapping[str, Any]]:
    """Yield the records of each audience and reason, the most frequent first."""
    parts: dict[tuple[str, str], list[QuarantineRecord]] = {}
    for one in records:
        parts.setdefault((one.audience, one.reason), []).append(one)
    for group in sorted(parts.values(), key=lambda each: -len(each)):
        yield group_of(group, look.settings)


def record(console: Console, asked: Asked) -> Page:
    """Show one record with its payload."""
    look = console.look
    store = look.quarantine()
    found = next(store.find(Filter.of_id(asked.path["id"])), None)
    if found is None:
        raise UsageWrong("There is no such record: it was placed or discarded meanwhile.")
    if asked.is_post:
        note_reveal(look, asked, f"record {found.id}")
    values = {
        "record": found,
        "document": store.document(found, reveal=asked.is_post),
        "is_revealed": asked.is_post,
    }
    return Page("record.html", f"Record {found.id}", values)


@dataclass(frozen=True, slots=True)
class WaitingPart:
    """The deliveries that wait for one trigger at one destination in one lane, over all partitions.

    Args:
        stops: The reason why it stands still, in words.
        move: The address of the act that mends orphans; "" = nothing mends them here.
    """

    destination: str
    trigger: str
    lane: str
    deliveries: int
    oldest_ms: int
    is_orphaned: bool
    stops: Sequence[str]
    move: str = ""

    @property
    def job(self) -> str:
        """Return the job whose lane it is; "" = none."""
        return job_of_lane(self.lane)


@dataclass(frozen=True, slots=True)
class WaitingLine:
    """A waiting delivery, about a person who stands there as a digest."""

    entry: WaitingEntry
    is_unwanted: bool


def waiting(console: Console, asked: Asked) -> Page:
    """Show what waits, by destination, trigger and lane, and the oldest deliveries."""
    look = console.look
    standing = look.standing()
    filters = {name: asked.get(name) for name in ("job", "trigger", "audience")}
    choice = Choice(**filters)
    partitions = all_partitions(look.client, look.settings)
    streams = find_streams(look.client, partitions, choice)
    values = {
        "parts": list(_parts(streams, standing)),
        "lines": list(_lines(look, streams, choice)),
        "total": sum(stream.length for stream in streams),
        "filters": filters,
        "is_filtered": any(filters.values()),
        "idle": standing.idle,
    }
    return Page("waiting.html", "Waiting", values)


def _parts(streams: Iterable[Stream], standing: Standing) -> Iterator[WaitingPart]:
    counts: Counter[tuple[str, str, str]] = Counter()
    oldest: dict[tuple[str, str, str], int] = {}
    orphaned: set[tuple[str, str, str]] = set()
    for stream in streams:
        key = (stream.partition.destination, stream.trigger, stream.lane)
        counts[key] += stream.length
        oldest[key] = min(oldest.get(key, stream.since_ms), stream.since_ms)
        if is_orphan(standing.settings, stream.partition, stream.trigger):
            orphaned.add(key)
    for key, count in counts.most_common():
        destination, trigger, lane = key
        stops = list(standing.stops([trigger], job_of_lane(lane)))
        is_orphaned = key in orphaned or trigger in standing.totals.orphans
        move = _move(standing.orphans_mended_by.get(trigger, "")) if is_orphaned else ""
        yield WaitingPart(
            *(destination, trigger, lane, count, oldest[key], is_orphaned, stops, move)
        )


def _move(command: str) -> str:
    found = act_in(command)
    if found is None:
        return ""
    act, values = found
    return address_of("/act", {"act": act.command, **values, "back": "/waiting"})


def _lines(look: Look, streams: Sequence[Stream], choice: Choice) -> Iterator[WaitingLine]:
    """Yield the oldest deliveries, as far as a page may read."""
    scopes = read_scopes(look.client, look.settings)
    entries = (
        entry
        for stream in sorted(streams, key=lambda one: one.since_ms)
        for entry in read_entries(look.client, stream)
    )
    wanted = (
        one
        for one in islice(entries, MOST_SCANNED)
        if one.header and choice.audience in ("", one.header.audience)
    )
    for one in islice(wanted, PAGE):
        is_gone = is_orphan(look.settings, one.stream.partition, one.stream.trigger)
        yield WaitingLine(one, is_unwanted(one, None if is_gone else scopes[one.stream.trigger]))

"""The pages Quarantine and Waiting: what could not be placed, and what waits for its turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from segrelay.ops.console.app import Asked, Columns, Console, Page, Sorting
from segrelay.ops.console.look import MOST_READ, Look, Scan
from segrelay.ops.console.revealing import note_reveal
from segrelay.ops.kept import Filter, KeptOptions
from segrelay.ops.quarantine import groups_of, matches
from segrelay.ops.state.partitions import Stream
from segrelay.ops.state.waiting import (
    Choice,
    WaitingEntry,
    is_orphan,
    read_first_entries,
)
from segrelay.ops.status.standing import Standing
from segrelay.worker.contract.words import Refusal, job_of_lane
from segrelay.worker.errors import UsageWrong

PAGE: Final = 50
_MOST_PAGES: Final = 1_000
_MOST_LINES: Final = 4 * PAGE
"""The waiting deliveries that are read to show a page of the oldest."""
_FILTERS: Final = ("audience", "kind", "since", "until")
_RECORDS: Final[Columns] = {
    "last-seen": attrgetter("last_seen_ms"),
    "audience": attrgetter("audience"),
    "reason": attrgetter("reason"),
    "times": attrgetter("times"),
}


def quarantine(console: Console, asked: Asked) -> Page:
    """Show the records that could not be placed, by audience and reason, and one by one."""
    look = console.look
    filters = {name: asked.get(name) for name in _FILTERS}
    store = look.quarantine()
    options = KeptOptions(**filters)
    wanted = options.chosen(look.client, look.settings, None)
    known = look.records()
    found = Scan([one for one in known.found if matches(one, wanted)], known.is_whole)
    sorting = Sorting.of(asked, _RECORDS, "-last-seen")
    records = sorting.apply(found.found, _RECORDS)
    number = asked.number("page", 1, _MOST_PAGES)
    values = {
        "totals": store.quarantine.totals(),
        "groups": groups_of(records, look.settings),
        "records": records[PAGE * (number - 1) : PAGE * number],
        "count": found.count,
        "is_whole": found.is_whole,
        "sorting": sorting,
        "page": number,
        "has_more": len(records) > PAGE * number,
        "filters": filters,
        "is_filtered": any(filters.values()),
        "reasons": sorted(Refusal),
    }
    return Page("quarantine.html", "Quarantine", values)


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
    """

    destination: str
    trigger: str
    lane: str
    deliveries: int
    oldest_ms: int
    is_orphaned: bool
    stops: Sequence[str]

    @property
    def job(self) -> str:
        """Return the job whose lane it is; "" = none."""
        return job_of_lane(self.lane)


@dataclass(frozen=True, slots=True)
class WaitingLine:
    """A waiting delivery, about a person who stands there as a digest."""

    entry: WaitingEntry
    is_orphaned: bool


_PARTS: Final[Columns] = {
    "trigger": attrgetter("trigger"),
    "destination": attrgetter("destination"),
    "lane": attrgetter("lane"),
    "deliveries": attrgetter("deliveries"),
    "oldest": attrgetter("oldest_ms"),
}


def waiting(console: Console, asked: Asked) -> Page:
    """Show what waits, by destination, trigger and lane, and the oldest deliveries."""
    look = console.look
    standing = look.standing()
    filters = {name: asked.get(name) for name in ("job", "trigger", "audience")}
    choice = Choice(**filters)
    streams = [one for one in standing.streams if one.length and choice.holds(one)]
    sorting = Sorting.of(asked, _PARTS, "-deliveries")
    number = asked.number("page", 1, _MOST_PAGES)
    parts = sorting.apply(_parts(streams, standing), _PARTS)
    lines = list(_lines(look, streams, choice))
    values = {
        "parts": parts[PAGE * (number - 1) : PAGE * number],
        "count": len(parts),
        "lines": lines[:PAGE],
        "total": sum(stream.length for stream in streams),
        "filters": filters,
        "is_filtered": any(filters.values()),
        "sorting": sorting,
        "page": number,
        "has_more": len(parts) > PAGE * number,
        "idle": standing.idle,
    }
    return Page("waiting.html", "Waiting", values, live_seconds=console.live_seconds)


def _parts(streams: Iterable[Stream], standing: Standing) -> Iterator[WaitingPart]:
    counts: Counter[tuple[str, str, str]] = Counter()
    oldest: dict[tuple[str, str, str], int] = {}
    orphaned: set[tuple[str, str, str]] = set()
    for stream in streams:
        key = (stream.partition.destination, stream.trigger, stream.lane)
        if key not in counts and is_orphan(standing.settings, stream.partition, stream.trigger):
            orphaned.add(key)
        counts[key] += stream.length
        oldest[key] = min(oldest.get(key, stream.since_ms), stream.since_ms)
    for key, count in counts.most_common():
        destination, trigger, lane = key
        stops = list(standing.stops([trigger], job_of_lane(lane)))
        yield WaitingPart(destination, trigger, lane, count, oldest[key], key in orphaned, stops)


def _lines(look: Look, streams: Sequence[Stream], choice: Choice) -> Iterator[WaitingLine]:
    """Yield the oldest deliveries, as far as a page may read."""
    oldest = sorted(streams, key=lambda one: one.since_ms)[:PAGE]
    entries = _oldest_entries(look, oldest, choice)
    for one in sorted(entries, key=lambda each: each.since_ms):
        yield WaitingLine(one, is_orphan(look.settings, one.stream.partition, one.stream.trigger))


def _oldest_entries(
    look: Look, streams: Sequence[Stream], choice: Choice
) -> Iterator[WaitingEntry]:
    """Yield the first entries of streams that are chosen; the oldest of all are among them.

    Of many streams few are read of each: the oldest of all are mostly the first of each.
    """
    most = MOST_READ if choice.audience else _MOST_LINES
    for_each = max(1, most // max(1, len(streams)))
    for one in read_first_entries(look.client, streams, for_each):
        if one.header and choice.audience in ("", one.header.audience):
            yield one

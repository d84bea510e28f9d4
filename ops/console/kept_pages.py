"""The pages Quarantine and Waiting: what could not be placed, and what waits for its turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from segrelay.ops.console.app import PAGE, Asked, Console, Page, columns_of, listed, note_reveal
from segrelay.ops.console.look import MOST_READ, Look, Scan
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

_MOST_LINES: Final = 4 * PAGE
"""The waiting deliveries that are read to show a page of the oldest."""
_FILTERS: Final = ("audience", "reason", "since", "until")
_RECORDS: Final = columns_of("audience", "reason", "times", **{"last-seen": "last_seen_ms"})


def quarantine(console: Console, asked: Asked) -> Page:
    """Show the records that could not be placed, by audience and reason, and one by one."""
    look = console.look
    filters = {name: asked.get(name) for name in _FILTERS}
    store = look.quarantine()
    options = KeptOptions(**filters)
    wanted = options.chosen(look.client, look.settings, None)
    known = look.records()
    found = Scan([one for one in known.found if matches(one, wanted)], known.is_whole)
    values = listed(asked, found.found, _RECORDS, "-last-seen") | {
        "totals": store.quarantine.totals(),
        "groups": groups_of(found.found, look.settings),
        "count": found.count,
        "is_whole": found.is_whole,
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
        note_reveal(console, asked, f"record {found.id}")
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
        """Return the name of the job whose lane it is; "" = it is no job's."""
        return job_of_lane(self.lane)


_PARTS: Final = columns_of("trigger", "destination", "lane", "deliveries", oldest="oldest_ms")


def waiting(console: Console, asked: Asked) -> Page:
    """Show what waits, by destination, trigger and lane, and the oldest deliveries."""
    look = console.look
    standing = look.standing()
    filters = {name: asked.get(name) for name in ("job", "trigger", "audience")}
    choice = Choice(**filters)
    streams = [one for one in standing.streams if one.length and choice.holds(one)]
    values = listed(asked, _parts(streams, standing), _PARTS, "-deliveries") | {
        "lines": _oldest(look, streams, choice),
        "total": sum(stream.length for stream in streams),
        "filters": filters,
        "is_filtered": any(filters.values()),
        "idle": standing.idle,
    }
    return Page("waiting.html", "Waiting", values, live_seconds=console.live_seconds)


def _parts(streams: Iterable[Stream], standing: Standing) -> Iterator[WaitingPart]:
    parts: defaultdict[tuple[str, str, str], list[Stream]] = defaultdict(list)
    for stream in streams:
        parts[stream.partition.destination, stream.trigger, stream.lane].append(stream)
    for (destination, trigger, lane), members in parts.items():
        yield WaitingPart(
            destination,
            trigger,
            lane,
            sum(stream.length for stream in members),
            min(stream.since_ms for stream in members),
            is_orphan(standing.settings, members[0].partition, trigger),
            list(standing.stops([trigger], job_of_lane(lane))),
        )


def _oldest(
    look: Look, streams: Iterable[Stream], choice: Choice
) -> list[tuple[WaitingEntry, bool]]:
    """Return the oldest deliveries that are chosen, and whether each is orphaned.

    Of many streams few are read of each: the oldest of all are mostly the first of each.
    """
    oldest = sorted(streams, key=lambda one: one.since_ms)[:PAGE]
    most = MOST_READ if choice.audience else _MOST_LINES
    for_each = max(1, most // max(1, len(oldest)))
    entries = [
        (entry, is_orphan(look.settings, entry.stream.partition, entry.stream.trigger))
        for entry in read_first_entries(look.client, oldest, for_each)
        if entry.header and choice.audience in ("", entry.header.audience)
    ]
    return sorted(entries, key=lambda each: each[0].since_ms)[:PAGE]

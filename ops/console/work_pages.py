"""The pages of the quarantine, of waiting deliveries, of jobs, syncs and templates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from segrelay.ops.backfill.report import read_report
from segrelay.ops.console.app import Asked, Console, Page, listed, note_reveal
from segrelay.ops.console.look import Look, Scan, scan
from segrelay.ops.console.overview import Plot
from segrelay.ops.kept import KeptOptions
from segrelay.ops.quarantine import groups_of, matches
from segrelay.ops.state.partitions import Stream
from segrelay.ops.state.waiting import (
    Filter,
    is_orphan,
)
from segrelay.ops.status.problems import gone_ms, per_second
from segrelay.ops.status.standing import Standing
from segrelay.ops.templates.workspace import names_in
from segrelay.ops.terminal.moments import parse_moment_ms
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.sync.store import Mark, Run, SyncStore
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.words import Refusal, job_of_lane
from segrelay.worker.errors import UsageWrong


def quarantine(console: Console, asked: Asked) -> Page:
    """Show the records that could not be placed, by audience and reason, and one by one."""
    look = console.look
    filters = {name: asked.get(name) for name in ("audience", "reason", "since", "until")}
    store = look.quarantine()
    wanted = KeptOptions(**filters).chosen(look.client, look.settings, None)
    known = look.records()
    found = Scan([one for one in known.found if matches(one, wanted)], known.is_whole)
    rows = sorted(found.found, key=lambda one: -one.last_seen_ms)
    values = listed(asked, rows) | {
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


def waiting(console: Console, asked: Asked) -> Page:
    """Show the deliveries that wait, by destination, trigger and lane."""
    standing = console.look.standing()
    filters = {name: asked.get(name) for name in ("job", "trigger", "audience")}
    choice = Filter(filters["job"], filters["trigger"], filters["audience"])
    streams = [one for one in standing.streams if one.length and choice.holds(one)]
    parts = sorted(_parts(streams, standing), key=lambda one: -one["deliveries"])
    values = listed(asked, parts) | {
        "total": sum(stream.length for stream in streams),
        "filters": filters,
        "is_filtered": any(filters.values()),
        "idle": standing.idle,
    }
    return Page("waiting.html", "Waiting", values, live_seconds=console.live_seconds)


def _parts(streams: Iterable[Stream], standing: Standing) -> Iterator[dict[str, Any]]:
    """Yield a row for each destination, trigger and lane: the sum over all partitions."""
    parts: defaultdict[tuple[str, str, str], list[Stream]] = defaultdict(list)
    for stream in streams:
        parts[stream.partition.destination, stream.trigger, stream.lane].append(stream)
    for (destination, trigger, lane), members in parts.items():
        yield {
            "destination": destination,
            "trigger": trigger,
            "lane": lane,
            "job": job_of_lane(lane),
            "deliveries": sum(stream.length for stream in members),
            "oldest_ms": min(stream.since_ms for stream in members),
            "is_orphaned": is_orphan(standing.settings, members[0].partition, trigger),
            "stops": list(standing.stops([trigger], job_of_lane(lane))),
        }


def jobs(console: Console, asked: Asked) -> Page:
    """Show all jobs, those first that are not over, and all syncs."""
    standing = console.look.standing()
    found = sorted(standing.jobs.items(), key=lambda one: (one[1].condition.has_ended, one[0]))
    values = listed(asked, [_job(standing, name) for name, _ in found]) | {
        "syncs": standing.syncs,
        "schedules": standing.settings.sync,
        "watches": standing.watches,
        "places": standing.settings.backfill.watch,
    }
    return Page("jobs.html", "Jobs and syncs", values, live_seconds=console.live_seconds)


def _job(standing: Standing, name: str) -> dict[str, Any]:
    """Return a job with its progress: the settled share of it, its pace, and when it is gone."""
    job, part = standing.jobs[name], f"job|{name}"
    read = job.rows / job.expected_rows if job.expected_rows else 1.0
    return {
        "name": name,
        "job": job,
        "per_second": per_second(standing.samples, part),
        "gone_ms": gone_ms(standing, job.counts.waiting, part),
        "share": min(1.0, read) * job.counts.settled / max(1, job.counts.accepted),
    }


def job(console: Console, asked: Asked) -> Page:
    """Show one job: its plan, its progress, its canary, and its report."""
    look, name = console.look, asked.path["name"]
    standing = look.standing()
    if name not in standing.jobs:
        raise UsageWrong("There is no such job.")
    known = JobStore(look.client).find(name)
    report = read_report(look.client, look.settings, name) if known else None
    document = report.document() if report else {}
    values = {
        "line": _job(standing, name),
        "spec": known.spec if known else None,
        "document": document,
        "plots": list(_plots(document)),
    }
    return Page("job.html", f"Job {name}", values, live_seconds=console.live_seconds)


def _plots(document: Mapping[str, Any]) -> Iterator[Plot]:
    spans = document.get("over_time", ())
    for title, kind in (("delivered", "good"), ("skipped", "calm"), ("dead", "bad")):
        if len(spans) > 1:
            points = [
                (parse_moment_ms(each["minute"], "minute", now_ms=0), each[title]) for each in spans
            ]
            yield Plot(title.title(), kind, points, "/min")


def sync(console: Console, asked: Asked) -> Page:
    """Show one sync: its run, its last result, and who would be taken out if it is confirmed."""
    look, name = console.look, asked.path["name"]
    standing = look.standing()
    if name not in standing.syncs:
        raise UsageWrong("The configuration has no such sync.")
    run = SyncStore(look.client, name, look.settings.redis).peek()
    asks = bool(run.asks)
    values = {
        "name": name,
        "run": run,
        "schedule": standing.settings.sync[name],
        "asks": asks,
        "leaving": _leaving(look, name, run, run.doubted[0]) if asks and run.doubted else None,
    }
    live = 0 if asks else console.live_seconds
    return Page("sync.html", f"Sync {name}", values, live_seconds=live)


def _leaving(look: Look, name: str, run: Run, number: int) -> Scan[tuple[str, int]]:
    """Return the members that a run has not seen, nor one since, as digests with partitions."""
    store = SyncStore(look.client, name, look.settings.redis)
    marks = (
        (key, mark, partition.number)
        for partition in store.partitions(run.destinations)
        for key, mark in store.members(partition)
    )
    looked = scan(marks)
    gone = {
        digest_of(key).hex(): partition
        for key, text, partition in looked.found
        if not (mark := Mark.loads(text)).is_name and mark.run < number
    }
    return Scan(list(gone.items()), looked.is_whole)


def templates(console: Console, asked: Asked) -> Page:
    """Show all templates with their triggers and versions."""
    del asked
    found: list[dict[str, Any]] = []
    settings, standing = console.settings, console.look.standing()
    used = {one.main_template for one in settings.triggers.values()}
    for name in sorted({*names_in(settings.templates_folder), *used}):
        triggers = {
            one.name: standing.triggers[one.name]
            for one in settings.triggers.values()
            if one.main_template == name and one.name in standing.triggers
        }
        own = triggers.values()
        refused = next((one.refused for one in own if one.refused), "")
        dead = sum(one.counts.dead for one in own)
        events = sum(one.events for one in own)
        row = {
            "name": name,
            "stops": any(one.condition.stops for one in own),
            "triggers": triggers,
            "versions": sorted({version for one in own for version in one.versions}),
            "refused": refused,
            "dead": dead,
            "engine_share": sum(one.asked for one in own) / events if events else None,
        }
        found.append(row)
    found.sort(key=lambda row: (bool(row["refused"]), row["stops"], row["dead"]), reverse=True)
    return Page("templates.html", "Templates", {"templates": found})

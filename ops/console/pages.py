"""The pages for a look at all: the present state with its plots, work and its templates, acts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice, pairwise
from typing import Any, Final

import orjson
from markupsafe import Markup

from segrelay.ops.audit import ActOptions
from segrelay.ops.audit import audit as list_acts
from segrelay.ops.console.acts import act_in
from segrelay.ops.console.app import (
    Asked,
    Console,
    Page,
    address_of,
    listed,
    note_reveal,
)
from segrelay.ops.console.look import LINES_FRESH_SECONDS, SPANS, Look, Scan, scan
from segrelay.ops.kept import KeptOptions, QuarantinedRecords, groups_of, matches, show_record
from segrelay.ops.outcomes import TAPPED, TapOptions, detail_of
from segrelay.ops.state.opened import Reads
from segrelay.ops.state.partitions import (
    KINDS,
    OUTCOMES,
    REASONED,
    Counts,
    counts_of,
)
from segrelay.ops.state.person import is_digest
from segrelay.ops.status.command import lines, sections
from segrelay.ops.status.problems import HealthProblem, gone_ms, per_second
from segrelay.ops.status.standing import Standing, TriggerStanding
from segrelay.ops.terminal.frame import Result, Table
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.sync.store import Mark, Run, SyncStore
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.outcomes import ASKED, REQUEST_BOUNDS, Histogram
from segrelay.worker.contract.processes import Sample
from segrelay.worker.contract.triggers import DESTINATION, TRIGGER
from segrelay.worker.contract.words import BACKFILL, Refusal
from segrelay.worker.errors import UsageWrong

_WHERE: Final[Mapping[str, str]] = {
    "segrelay dlq causes": "/letters",
    "segrelay quarantine list": "/quarantine",
    "segrelay sync status": "/jobs",
    "segrelay backfill status": "/jobs",
    "segrelay template check": "/status",
    "segrelay config check": "/status",
    "segrelay audit": "/audit",
}
"""The page that shows the same as a command."""


def _remedy(problem: HealthProblem) -> tuple[str, str, str]:
    """Return the button that mends a problem: its address, its label and its act.

    The address is that of the page that acts, or shows what the problem's command shows; "" =
    there is none. Without an act, the page only shows.
    """
    for act, values in filter(None, map(act_in, problem.commands)):
        if act.command == "sync confirm":
            return f"/syncs/{values['sync']}", "Who would leave?", ""
        address = address_of("/act", {"act": act.command, **values, "back": "/"})
        return address, act.title, act.command
    shown = (page for name, page in _WHERE.items() if problem.command.startswith(name))
    return next(shown, ""), "Look", ""


BalanceRow = Mapping[str, Any]
"""The counts of a part of all deliveries, and when (ms) nothing of it waits any more."""


def _row(
    name: str, counts: Counts, kind: str, condition: Any = None, gone_ms: int | None = None
) -> BalanceRow:
    return {
        "name": name,
        "counts": counts,
        "kind": kind,
        "condition": condition,
        "gone_ms": gone_ms,
    }


def _need(trigger: TriggerStanding) -> tuple[bool, bool, int, int]:
    """Return the sort key of a trigger's trouble: stopped before late, then by dead and waiting."""
    condition, counts = trigger.condition, trigger.counts
    return condition.stops, condition.state != "ok", counts.dead, counts.waiting


def now(console: Console, asked: Asked) -> Page:
    """Show problems, the balance, plots of a span of time, gates and workers."""
    judged = console.look.judged()
    standing, waiting = judged.standing, judged.standing.counts.waiting
    span = asked.get("span") if asked.get("span") in SPANS else "hour"
    kind, _, name = asked.get("of").partition(":")
    place, trigger = (name if kind == one else "" for one in (DESTINATION, TRIGGER))
    needy = sorted(standing.triggers.items(), key=lambda one: _need(one[1]), reverse=True)
    by_trigger = [_row(name, one.counts, TRIGGER, one.condition) for name, one in needy]
    values = listed(asked, by_trigger) | {
        "standing": standing,
        "remedies": [(one, *_remedy(one)) for one in judged.problems],
        "kinds": KINDS,
        "total": _row("", standing.counts, "all", None, gone_ms(standing, waiting)),
        "reasons": {kind: standing.counts.by_reason(kind) for kind in REASONED},
        **_parts_of(standing),
        "span": span,
        "of": asked.get("of"),
        "spans": list(SPANS),
        "plots": plots_of(console.look.samples[span](), standing, place, trigger),
    }
    return Page("now.html", "Now", values, live_seconds=console.live_seconds)


def _parts_of(standing: Standing) -> dict[str, list[BalanceRow]]:
    """Return the rows of lanes, and those of destinations."""
    lanes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    places: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in standing.triggers.values():
        places[one.destination].update({kind: one.counts.of(kind) for kind in KINDS})
        for lane, counts in one.by_lane.items():
            lanes[lane].update({kind: counts.of(kind) for kind in OUTCOMES})
        for lane, wait in one.waits.items():
            lanes[lane]["waiting"] += wait.deliveries

    def row(name: str, tally: Counter[str], kind: str, part: str) -> BalanceRow:
        place = standing.destinations[name] if kind == DESTINATION else None
        gone = gone_ms(standing, tally["waiting"], part, name if place else "")
        return _row(name, counts_of(tally), kind, place and place.condition, gone)

    return {
        "lanes": [row(n, tally, "lane", n.replace(BACKFILL, "jobs")) for n, tally in lanes.items()],
        "by_destination": [
            row(n, places[n], DESTINATION, "settled") for n in standing.destinations
        ],
    }


_SHOWN: Final = 100


def tap(console: Console, asked: Asked) -> Page:
    """Show the newest rows of the outcome log."""
    filters = {field.name: asked.get(field.name) for field in fields(TapOptions)}
    if filters["person"] and not is_digest(filters["person"]):
        raise UsageWrong("A person is a digest here: the page of a person shows it.")
    wanted = TapOptions(**filters).chosen(console.look.settings)
    found = islice(filter(wanted.wants, console.look.outcomes()), _SHOWN)
    rows = [(row, detail_of(row)) for row in found]
    values = {"rows": rows, "filters": filters, "outcomes": TAPPED}
    return Page("tap.html", "Tap", values, live_seconds=LINES_FRESH_SECONDS)


_MOST_ACTS: Final = 500


def audit(console: Console, asked: Asked) -> Page:
    """Show the acts of the audit that the filters choose, as `segrelay audit` lists them."""
    filters = {field.name: asked.get(field.name) for field in fields(ActOptions)}
    relay = Reads("audit", console.settings, console.look.client)
    result = list_acts(options=ActOptions(**filters), limit=_MOST_ACTS, relay=relay)
    values = {"result": result, "filters": filters, "started": console.started.latest()}
    return Page("audit.html", "Audit", values)


def status(console: Console, asked: Asked) -> Page:
    """Show the whole status, as `segrelay status` prints it."""
    del asked
    judged = console.look.judged()
    parts: list[str | Table] = [*lines(judged.standing)]
    parts += sections(judged.standing, judged.problems)
    values = {"result": Result(None, *parts)}
    return Page("status.html", "Status", values, live_seconds=console.live_seconds)


def quarantine(console: Console, asked: Asked) -> Page:
    """Show the records that could not be placed, by audience and reason, and one by one."""
    look = console.look
    filters = {name: asked.get(name) for name in ("audience", "reason", "since", "until")}
    store = QuarantinedRecords(look.client, look.settings)
    wanted = KeptOptions(**filters).chosen(look.client, look.settings, None)
    known = look.records()
    found = Scan([one for one in known.found if matches(one, wanted)], known.is_whole)
    rows = sorted(found.found, key=lambda one: -one.last_seen_ms)
    values = listed(asked, rows) | {
        "totals": store.stored.totals(),
        "groups": groups_of(found.found, look.settings),
        "count": found.count,
        "is_whole": found.is_whole,
        "filters": filters,
        "is_filtered": any(filters.values()),
        "reasons": sorted(Refusal),
    }
    return Page("quarantine.html", "Quarantine", values)


def record(console: Console, asked: Asked) -> Page:
    """Show one record of the quarantine; its payload only if the person asks for it."""
    name, relay = asked.path["id"], Reads("quarantine show", console.settings, console.look.client)
    found = show_record(name, reveal=asked.is_post, relay=relay)
    if asked.is_post:
        note_reveal(console, asked, f"record {name}")
    payload = found.document.pop("payload")
    values = {"record": found.document, "payload": payload, "is_revealed": asked.is_post}
    return Page("record.html", f"Record {name}", values)


def waiting(console: Console, asked: Asked) -> Page:
    """Show the deliveries that wait, by trigger and lane."""
    standing, only = console.look.standing(), asked.get("trigger")
    found = [
        (name, one, lane, wait, list(standing.stops([name])))
        for name, one in standing.triggers.items()
        if only in ("", name)
        for lane, wait in one.waits.items()
    ]
    found.sort(key=lambda row: -row[3].deliveries)
    values = listed(asked, found) | {
        "total": sum(wait.deliveries for *_, wait, _ in found),
        "only": only,
        "idle": standing.idle,
    }
    return Page("waiting.html", "Waiting", values, live_seconds=console.live_seconds)


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
    """Show one job: its plan, its progress, and its canary."""
    look, name = console.look, asked.path["name"]
    standing = look.standing()
    if name not in standing.jobs:
        raise UsageWrong("There is no such job.")
    values = {"line": _job(standing, name), "known": JobStore(look.client).find(name)}
    return Page("job.html", f"Job {name}", values, live_seconds=console.live_seconds)


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
    """Return the members that no run since this one has seen, as digests with partitions."""
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


_WIDTH, _HEIGHT = 240, 48
_LINE: Final = Markup(
    '<svg class="plot {kind}" viewBox="0 0 240 48" preserveAspectRatio="none" role="img"'
    ' aria-label="{label}" data-points="{points}" data-unit="{unit}"><polygon points="{left},'
    '48 {line} {right},48"/><polyline points="{line}"/></svg>'
)


def _plot(
    title: str, kind: str, points: Sequence[tuple[int, float | None]], unit: str
) -> dict[str, Any]:
    """Return a plot of one measure as the page shows it, with its newest and its highest value.

    Args:
        title: The name of the measure.
        kind: `good`, `bad` or `calm`.
        points: The times (ms) with their values, the oldest first; None = not known.
        unit: The unit behind a value, such as ` ms`.
    """
    known = [(at_ms, value) for at_ms, value in points if value is not None]
    top = max((value for _, value in known), default=0.0)
    newest = f"{known[-1][1]:,.0f}{unit}" if known else "-"
    highest = f"{top:,.0f}{unit}" if known else "-"
    svg = Markup('<p class="quiet">no samples yet</p>')
    if len(known) > 1:  # a line has two ends
        first_ms, span_ms = points[0][0], points[-1][0] - points[0][0]
        across, up = _WIDTH / span_ms, (_HEIGHT - 6) / (top or 1)
        line = [((at_ms - first_ms) * across, _HEIGHT - 2 - value * up) for at_ms, value in known]
        svg = _LINE.format(
            kind=kind if top else "calm",
            line=" ".join(f"{x:.1f},{y:.1f}" for x, y in line),
            left=f"{line[0][0]:.1f}",
            right=f"{line[-1][0]:.1f}",
            label=f"{title}: now {newest}, at most {highest}",
            points=orjson.dumps([(at_ms, round(value)) for at_ms, value in known]).decode(),
            unit=unit,
        )
    named = {"title": title, "newest": newest, "highest": highest}
    return named | {"svg": svg, "points": points}


def plots_of(
    samples: Sequence[Sample], standing: Standing, destination: str = "", trigger: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the plots of everything, of a destination, or of a trigger.

    Args:
        samples: The samples, the oldest first.
        standing: The standing, with the rate that the gate of each destination allows now.
        destination: The only destination that counts; "" = all.
        trigger: The only trigger that counts, of which only outcomes are sampled; "" = all.
    """
    allowed = sum(g.rate for n, g in standing.destinations.items() if destination in ("", n))
    counts = list({one.at_ms: _measures(one, destination, trigger) for one in samples}.items())
    grown = [
        (at_ms, new - old, (at_ms - then_ms) / 60_000)
        for (then_ms, old), (at_ms, new) in pairwise(counts)
        if at_ms > then_ms
    ]
    for name, kind in (("delivered", "good"), ("dead", "bad")):
        rates = [(at_ms, n[name] / minutes) for at_ms, n, minutes in grown]
        yield _plot(name.capitalize(), kind, rates, "/min")
    if not trigger:
        yield _plot("Waiting", "calm", [(at_ms, n["waits"]) for at_ms, n in counts], "")
        used = [
            (at_ms, 100 * n["requests"] / minutes / allowed if allowed else None)
            for at_ms, n, minutes in grown
        ]
        yield _plot("Rate used", "calm", used, " %")
        answers = [(at_ms, Histogram.read(n, ASKED, REQUEST_BOUNDS)) for at_ms, n, _ in grown]
        for share in (0.5, 0.95):
            found = [(at_ms, times.quantile(share)) for at_ms, times in answers]
            shown = [(at_ms, one if one is None else 1_000 * one) for at_ms, one in found]
            yield _plot(f"Answers p{100 * share:.0f}", "calm", shown, " ms")


def _measures(sample: Sample, destination: str, trigger: str) -> Counter[str]:
    """Return the counts of a sample by their kind, and the times of answers by bucket."""
    found: Counter[str] = Counter()
    for name, counts in sample.counts.items():
        if destination in ("", name):
            for field, count in counts.items():
                kind, _, rest = field.partition("|")
                if trigger in ("", rest.partition("|")[0]):
                    found[field if kind == ASKED else kind] += count
    return found

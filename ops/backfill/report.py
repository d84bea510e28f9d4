"""`segrelay backfill report`: what became of a job, and the rows to mend."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from segrelay.ops.state.acts import EXPORTED_FILE, Acts
from segrelay.ops.state.partitions import all_partitions, ask_each, snapshots, sum_counts
from segrelay.ops.state.waiting import state_of
from segrelay.ops.terminal.console import mention, private_file
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.moments import shown_ms
from segrelay.producer.backfill.jobs import BadRow, Job, JobStore
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.acts import note_act
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import Pause, read_pauses
from segrelay.worker.contract.words import lane_of_job
from segrelay.worker.errors import UsageWrong

KINDS: Final = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and the outcomes of its deliveries."""

    job: Job
    counts: Mapping[str, int]
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pause: Pause | None = None

    @property
    def state(self) -> str:
        """Return the job's state in a word or two."""
        return state_of(self.job, waiting=self.counts["waiting"], pause=self.pause)

    @property
    def next_step(self) -> str:
        """Return the command that goes on with the job; "" = nothing needs to be done."""
        name = self.job.spec.name
        match self.state:
            case "interrupted" | "paused" | "failed":
                return f"segrelay backfill resume {name}"
            case "at its canary":
                return f"segrelay backfill resume {name}   (or abort {name})"
            case _:
                return ""

    def document(self) -> dict[str, Any]:
        """Return the state of the job as `backfill status --json` prints it."""
        spec, tally = self.job.spec, self.job.tally
        membership = spec.membership
        return {
            "job": spec.name,
            "state": self.state,
            "sources": list(spec.sources),
            "started_at": spec.started_at,
            "audience": membership.audience if membership else None,
            "on": membership.direction if membership else None,
            "as_of": membership.as_of if membership else None,
            "triggers": list(spec.triggers),
            "skip_hook": spec.skip_hook,
            "rows": tally.rows,
            "events": tally.events,
            "unmatched": tally.unmatched,
            "refused": tally.refused,
            "bytes": spec.size,
            **{kind: self.counts[kind] for kind in KINDS},
            "skipped_by_reason": dict(self.reasons.get("skipped", {})),
            "dead_by_reason": dict(self.reasons.get("dead", {})),
            "paused": self.pause.reason if self.pause else None,
            "problem": self.job.problem or None,
            "next": self.next_step or None,
        }

    def lines(self) -> Iterator[str]:
        """Yield the state of the job as `backfill status` prints it."""
        spec, tally, counts = self.job.spec, self.job.tally, self.counts
        yield f"job {spec.name}: {self.state}"
        yield f"  from {', '.join(spec.sources)}, begun {spec.started_at}"
        if self.job.problem:
            yield f"  {self.job.problem}"
        if self.pause:
            yield f"  not delivered: {self.pause.reason}"
        if spec.membership:
            m = spec.membership
            yield f"  {m.direction} of {m.audience} as of {m.as_of}"
        yield (
            f"  read: {plural(tally.rows, 'row')}, {plural(tally.events, 'event')}, "
            f"{tally.unmatched:,} unmatched, {tally.refused:,} refused"
        )
        yield (
            f"  deliveries: {counts['accepted']:,} accepted = {counts['delivered']:,} delivered "
            f"+ {counts['skipped']:,} skipped + {counts['dead']:,} dead "
            f"+ {counts['discarded']:,} discarded + {counts['waiting']:,} waiting"
        )
        for kind, reasons in self.reasons.items():
            for reason, number in sorted(reasons.items()):
                yield f"    {kind} {reason}: {number:,}"
        if self.next_step:
            yield f"  next: {self.next_step}"


def read_view(client: Redis, settings: Settings, job: Job) -> JobView:
    """Read a backfill job: its state, its progress, and the outcomes of its deliveries."""
    name = job.spec.name
    counts: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {"skipped": Counter(), "dead": Counter()}
    found = snapshots(client, all_partitions(client, settings))
    for field_name, number in (row for one in sum_counts(found).values() for row in one.items()):
        parts = field_name.split("|")
        if parts[:2] != ["job", name]:
            continue
        if len(parts) == 3:  # noqa: PLR2004 - job, name, kind
            counts[parts[2]] += number
        elif parts[2] in reasons:
            reasons[parts[2]][parts[3]] += number
    for one in found:
        own = (each for each in one.waiting if each.lane == lane_of_job(name))
        counts["waiting"] += sum(each.length for each in own)
    pause = read_pauses(client).jobs.get(name)
    return JobView(job, {kind: counts[kind] for kind in KINDS}, reasons, pause)


def read_all(client: Redis, settings: Settings) -> list[JobView]:
    """Return the states of all jobs, the newest first."""
    store = JobStore(client)
    found = [job for name in store.names() if (job := store.find(name))]
    found.sort(key=lambda job: job.spec.started_at, reverse=True)
    return [read_view(client, settings, job) for job in found]


_COLOURS: Final = {"delivered": "#2e7d32", "skipped": "#90a4ae", "dead": "#c62828"}
_WIDTH, _HEIGHT = 960, 220
_MOST_BARS: Final = 240
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Backfill {name}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
   color: #1b1b1b; }}
 table {{ border-collapse: collapse; margin: .5rem 0 1.5rem; }}
 td, th {{ border-bottom: 1px solid #ddd; padding: .25rem .8rem .25rem 0; text-align: left; }}
 td.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
 svg {{ width: 100%; height: auto; background: #fafafa; }}
 code {{ background: #f2f2f2; padding: 0 .25rem; }}
</style>
<h1>Backfill <code>{name}</code>: {state}</h1>
{body}
</html>
"""


def page_of(report: JobReport) -> str:
    """Return the HTML page of a report."""
    name, state = report.view.job.spec.name, report.view.state
    body = "\n".join(_parts(report))
    return _PAGE.format(name=escape(name), state=escape(state), body=body)


def _parts(report: JobReport) -> Iterator[str]:
    found = report.document()
    yield f"<p>From {escape(', '.join(found['sources']))}, begun {found['started_at']}.</p>"
    if found["audience"]:
        what = f"{found['on']} of {found['audience']} as of {found['as_of']}"
        yield f"<p>{escape(what)}. Journeys: {'no' if found['skip_hook'] else 'yes'}.</p>"
    if found["problem"]:
        yield f"<p>{escape(found['problem'])}</p>"
    if found["next"]:
        yield f"<p>Next: <code>{escape(found['next'])}</code></p>"
    yield "<h2>Rows</h2>"
    yield _table((kind, found[kind]) for kind in ("rows", "events", "unmatched", "refused"))
    yield "<h2>Deliveries</h2>"
    yield _table((kind, found[kind]) for kind in KINDS)
    for kind in ("skipped", "dead"):
        if found[f"{kind}_by_reason"]:
            yield f"<h3>{kind} because of</h3>"
            yield _table(found[f"{kind}_by_reason"].items())
    if report.spans:
        yield "<h2>Over time</h2>"
        yield _chart(report.spans)
    yield from _bad_rows(report)


def _table(rows: Iterable[tuple[str, int]]) -> str:
    cells = (
        f'<tr><td>{escape(name)}</td><td class="n">{count:,}</td></tr>' for name, count in rows
    )
    return f"<table>{''.join(cells)}</table>"


def _chart(spans: Mapping[int, Mapping[str, int]]) -> str:
    """Return a chart of the outcomes: a bar for each minute, or for each few minutes."""
    first, last = min(spans), max(spans)
    minutes = (last - first) // _MOST_BARS + 1
    bars: dict[int, dict[str, int]] = {}
    for minute, counts in spans.items():
        bar = bars.setdefault((minute - first) // minutes, dict.fromkeys(OUTCOMES, 0))
        for kind in OUTCOMES:
            bar[kind] += counts[kind]
    highest = max(sum(bar.values()) for bar in bars.values()) or 1
    width = min(40.0, _WIDTH / ((last - first) // minutes + 1))
    drawn = "".join(_bar(at * width, width, bar, highest) for at, bar in sorted(bars.items()))
    legend = ", ".join(f'<span style="color:{_COLOURS[kind]}">{kind}</span>' for kind in OUTCOMES)
    each = "minute" if minutes == 1 else f"{minutes} minutes"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="outcomes over time">'
        f"{drawn}</svg><p>{legend} for each {each}, from {_begin(first)} to "
        f"{_begin(last)}; the highest bar is {highest:,}.</p>"
    )


def _bar(x: float, width: float, bar: dict[str, int], highest: int) -> str:
    parts, y = [], float(_HEIGHT)
    for kind, count in bar.items():
        height = _HEIGHT * count / highest
        y -= height
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(1.0, width - 1):.1f}" '
            f'height="{height:.1f}" fill="{_COLOURS[kind]}"><title>{kind} {count:,}</title></rect>'
        )
    return "".join(parts)


def _bad_rows(report: JobReport) -> Iterator[str]:
    if not report.bad_rows:
        return
    name = escape(report.view.job.spec.name)
    yield "<h2>Rows that could not be placed</h2>"
    yield (
        f"<p>{report.view.job.tally.refused:,} in all, {len(report.bad_rows):,} are kept: "
        f"<code>segrelay backfill report {name} --bad-rows FILE</code> writes them, to be mended "
        "and sent again.</p>"
    )
    rows = "".join(
        f'<tr><td>{escape(row.file)}</td><td class="n">{row.line}</td>'
        f"<td>{escape(row.reason)}</td><td>{escape(row.message)}</td></tr>"
        for row in report.bad_rows[:BAD_ROWS_TOLD]
    )
    yield f"<table><tr><th>file<th>line<th>reason<th>message</tr>{rows}</table>"
    if len(report.bad_rows) > BAD_ROWS_TOLD:
        yield f"<p>The first {BAD_ROWS_TOLD} are shown.</p>"


def report(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's name.")],
    *,
    html: Annotated[Path | None, typer.Option(help="Write a page to read.", metavar="FILE")] = None,
    bad_rows: Annotated[
        Path | None,
        typer.Option(help="Write the rows that could not be placed, to be mended.", metavar="FILE"),
    ] = None,
    relay: Acts,
) -> Result:
    """Report a job: rows, outcomes by reason and over time, rows that could not be placed.

    --json has the outcomes minute by minute, too. The file of --bad-rows has the rows as they came,
    which are people's data: mend it, start a backfill of it, and delete it. Only you may read what
    is written (mode 0600).
    """
    found = read_report(relay.client, relay.settings, job)
    if bad_rows is not None:
        act = relay.act(job, **{EXPORTED_FILE: str(bad_rows.resolve())})
        note_act(relay.client, replace(act, count=len(found.bad_rows)))
    try:
        if html is not None:
            with private_file(html) as file:
                file.write(page_of(found).encode())
            mention(f"The page is {html}.")
        if bad_rows is not None:
            _write(found, bad_rows)
    except OSError as error:
        raise UsageWrong(f"{error.filename} can't be written: {error.strerror}.") from error
    return Result(found.document(), *_lines(found))


def _lines(report: JobReport) -> Iterator[str]:
    yield from report.view.lines()
    if report.spans:
        yield f"  settled from {_begin(min(report.spans))} to {_begin(max(report.spans))}"
    for row in report.bad_rows[:_BAD_ROWS_IN_TEXT]:
        yield f"  {row.file}:{row.line}: {row.reason}: {row.message}"
    if len(report.bad_rows) > _BAD_ROWS_IN_TEXT:
        yield "  …; --json and --html tell more of them, --bad-rows writes all to a file"


def _write(found: JobReport, path: Path) -> None:
    written, lost = write_bad_rows(found.bad_rows, path)
    mention(
        f"{path} holds {plural(written, 'row')}: mend them, then `segrelay backfill start"
        f" {path} …`."
    )
    if any(row.text and not row.text.lstrip().startswith(("{", "[")) for row in found.bad_rows):
        mention(
            "Rows that are not JSON stand there as they came. Those of a CSV file need a file of "
            "their own, with the header above them or with --columns."
        )
    missing = found.view.job.tally.refused - written
    if lost:
        mention(f"Too large to be kept: {plural(lost, 'row')}; the report names their lines.")
    if missing > lost:
        mention(f"{missing - lost:,} more were refused than are kept, or share a row.")


OUTCOMES: Final = ("delivered", "skipped", "dead")
BAD_ROWS_TOLD: Final = 200
_BAD_ROWS_IN_TEXT: Final = 10
_MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class JobReport:
    """The report of a job.

    Args:
        spans: The outcomes of the deliveries that were settled within a minute, by the minute.
        bad_rows: At most as many as Redis keeps; `view.job.tally.refused` has the number of all.
    """

    view: JobView
    spans: Mapping[int, Mapping[str, int]]
    bad_rows: Sequence[BadRow]

    def document(self) -> dict[str, Any]:
        """Return the JSON document; texts of rows stay out, `write_bad_rows` writes them."""
        reasons = Counter(row.reason for row in self.bad_rows)
        return self.view.document() | {
            "over_time": [{"minute": _begin(one), **counts} for one, counts in self.spans.items()],
            "refused_by_reason": dict(reasons.most_common()),
            "bad_rows_kept": len(self.bad_rows),
            "bad_rows": [
                {"file": r.file, "line": r.line, "reason": r.reason, "message": r.message}
                for r in self.bad_rows[:BAD_ROWS_TOLD]
            ],
        }


def read_report(client: Redis, settings: Settings, name: str) -> JobReport:
    """Read the report of a job: its state, its minutes, and its bad rows."""
    store = JobStore(client)
    view = read_view(client, settings, store.named(name))
    return JobReport(view, _spans(client, settings, name), list(store.bad_rows(name)))


def _spans(client: Redis, settings: Settings, name: str) -> dict[int, dict[str, int]]:
    partitions = all_partitions(client, settings)
    answers = ask_each(client, partitions, lambda pipe, partition: pipe.hgetall(partition.jobtimes))
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        for raw, count in answer.items():
            job, minute, kind = raw.decode().split("|")
            if job == name:
                found[int(minute)][kind] += int(count)
    return {minute: {kind: found[minute][kind] for kind in OUTCOMES} for minute in sorted(found)}


def _begin(minute: int) -> str:
    """Return the beginning of a minute, as RFC 3339."""
    return shown_ms(minute * _MINUTE_MS, "minutes")


def write_bad_rows(rows: Iterable[BadRow], path: Path) -> tuple[int, int]:
    """Write the rows as they came, a line each, to be mended and sent again; for its owner alone.

    Returns:
        How many were written, and how many were too large to be kept.
    """
    written = lost = 0
    with private_file(path) as file:
        for row in rows:
            if not row.text:
                lost += 1
                continue
            file.write(row.text.rstrip("\r\n").encode() + b"\n")
            written += 1
    return written, lost

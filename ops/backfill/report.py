"""`segrelay backfill report`: what became of a job, and the rows to mend."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
            case "interrupted" | "paused" | "failed" | "at its canary":
                return f"segrelay backfill resume {name}"
            case _:
                return ""

    def document(self) -> dict[str, Any]:
        """Return the state of the job as `backfill status --json` prints it."""
        spec, tally = self.job.spec, self.job.tally
        return {
            "job": spec.name,
            "state": self.state,
            "started_at": spec.started_at,
            **spec.document(),
            "triggers": list(spec.options.triggers),
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


OUTCOMES: Final = ("delivered", "skipped", "dead")


def report(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's name.")],
    *,
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
        yield "  …; --json tells more of them, --bad-rows writes all to a file"


def _write(found: JobReport, path: Path) -> None:
    """Write the rows as they came, a line each, to be mended and sent again; only for the owner."""
    kept = [row.text for row in found.bad_rows if row.text]
    with private_file(path) as file:
        file.writelines(text.rstrip("\r\n").encode() + b"\n" for text in kept)
    written, lost = len(kept), len(found.bad_rows) - len(kept)
    mention(
        f"{path} holds {plural(written, 'row')}: mend them, then `segrelay backfill start"
        f" {path} …`."
    )
    if not all(text.lstrip().startswith(("{", "[")) for text in kept):
        mention(
            "Rows that are not JSON stand there as they came. Those of a CSV file need a file of "
            "their own, with the header above them or with --columns."
        )
    missing = found.view.job.tally.refused - written
    if lost:
        mention(f"Too large to be kept: {plural(lost, 'row')}; the report names their lines.")
    if missing > lost:
        mention(f"{missing - lost:,} more were refused than are kept, or share a row.")


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
        """Return the JSON document; texts of rows stay out, `--bad-rows` writes them."""
        reasons = Counter(row.reason for row in self.bad_rows)
        return self.view.document() | {
            "over_time": [{"minute": _begin(one), **counts} for one, counts in self.spans.items()],
            "refused_by_reason": dict(reasons.most_common()),
            "bad_rows_kept": len(self.bad_rows),
            "bad_rows": [row.document() for row in self.bad_rows[:BAD_ROWS_TOLD]],
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

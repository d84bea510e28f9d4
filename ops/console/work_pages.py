"""The pages of jobs and syncs: how far they are, what stops them, and who would be taken out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from segrelay.ops.backfill.report import read_report
from segrelay.ops.console.app import Asked, Columns, Console, Page, columns_of, listed
from segrelay.ops.console.look import Look, Scan, scan
from segrelay.ops.console.plots import Plot
from segrelay.ops.status.lateness import gone_ms, per_second
from segrelay.ops.status.standing import JobStanding, Standing
from segrelay.ops.status.totals import KINDS
from segrelay.ops.terminal.moments import parse_moment_ms
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.sync.run import Run
from segrelay.producer.sync.store import Mark, SyncStore
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.errors import UsageWrong


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job with its progress.

    Args:
        per_second: Deliveries that were settled a second lately; None = not known.
        gone_ms: The time when nothing of it waits any more, at this pace; None = not known.
    """

    name: str
    job: JobStanding
    per_second: float | None
    gone_ms: int | None

    @classmethod
    def of(cls, standing: Standing, name: str) -> JobLine:
        """Return the progress of a job."""
        job, part = standing.jobs[name], f"job|{name}"
        gone = gone_ms(standing, job.counts.waiting, part)
        return cls(name, job, per_second(standing.samples, part), gone)

    @property
    def share(self) -> float:
        """Return the share of the job that is settled, 0 to 1, as far as its rows are known."""
        accepted = self.job.counts.accepted
        read = self.job.rows / self.job.expected_rows if self.job.expected_rows else 1.0
        return min(1.0, read) * (self.job.counts.settled / accepted if accepted else 0.0)


_OVER: Final = frozenset({"done", "aborted"})
_COLUMNS: Final[Columns] = {
    "need": lambda one: (one.job.condition.state in _OVER, one.name),
    **columns_of(job="name", state="job.condition.state", progress="share", rows="job.rows"),
    **columns_of(rate="per_second", **{kind: f"job.counts.{kind}" for kind in KINDS}),
}


def jobs(console: Console, asked: Asked) -> Page:
    """Show all jobs, those first that are not over, and all syncs."""
    standing = console.look.standing()
    lines = (JobLine.of(standing, name) for name in standing.jobs)
    values = listed(asked, lines, _COLUMNS, "need") | {
        "syncs": standing.syncs,
        "schedules": standing.settings.sync,
        "watches": standing.watches,
        "places": standing.settings.backfill.watch,
    }
    return Page("jobs.html", "Jobs and syncs", values, live_seconds=console.live_seconds)


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
        "line": JobLine.of(standing, name),
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

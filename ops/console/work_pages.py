"""The pages of jobs and syncs: how far they are, what stops them, and who would be taken out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from segrelay.ops.backfill.report import read_report
from segrelay.ops.console.app import Asked, Columns, Console, Page, listed
from segrelay.ops.console.look import MOST_SCANNED, Look, Scan, scan
from segrelay.ops.console.plots import Plot
from segrelay.ops.status.standing import JobStanding
from segrelay.ops.status.totals import KINDS
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.sync.run import Run
from segrelay.producer.sync.store import Mark, SyncStore
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.processes import Sample
from segrelay.worker.errors import UsageWrong

_MEASURED: Final = 6
"""Samples by which the rate of a job is measured: a minute, if workers run."""


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job with its progress.

    Args:
        per_second: Deliveries that were settled a second lately; None = not known.
    """

    name: str
    job: JobStanding
    per_second: float | None

    @property
    def seconds_left(self) -> float | None:
        """Return the time until what waits is settled at this rate; None = not known."""
        waiting = self.job.counts.waiting
        return waiting / self.per_second if waiting and self.per_second else None

    @property
    def share(self) -> float:
        """Return the share of the job that is settled, 0 to 1, as far as its rows are known."""
        accepted = self.job.counts.accepted
        read = self.job.rows / self.job.expected_rows if self.job.expected_rows else 1.0
        return min(1.0, read) * (self.job.counts.settled / accepted if accepted else 0.0)


_OVER: Final = frozenset({"done", "aborted"})
_COLUMNS: Final[Columns] = {
    "need": lambda one: (one.job.condition.state in _OVER, one.name),
    "job": attrgetter("name"),
    "state": attrgetter("job.condition.state"),
    "progress": attrgetter("share"),
    "rows": attrgetter("job.rows"),
    "rate": attrgetter("per_second"),
    **{kind: attrgetter(f"job.counts.{kind}") for kind in KINDS},
}


def jobs(console: Console, asked: Asked) -> Page:
    """Show all jobs, those first that are not over, and all syncs."""
    standing = console.look.standing()
    lines = (
        JobLine(name, one, per_second(standing.samples, name))
        for name, one in standing.jobs.items()
    )
    values = listed(asked, lines, _COLUMNS, "need") | {
        "syncs": standing.syncs,
        "schedules": standing.settings.sync,
        "watches": standing.watches,
        "places": standing.settings.backfill.watch,
    }
    return Page("jobs.html", "Jobs and syncs", values, live_seconds=console.live_seconds)


def per_second(samples: Sequence[Sample], job: str) -> float | None:
    """Return how many deliveries of a job were settled a second lately."""
    if len(samples) < 2:  # noqa: PLR2004 - a rate is between two
        return None
    newer, older = samples[0], samples[min(_MEASURED, len(samples) - 1)]
    settled = [
        sum(counts.get(f"job|{job}", 0) for counts in one.counts.values()) for one in (older, newer)
    ]
    seconds = (newer.at_ms - older.at_ms) / 1_000
    return max(0, settled[1] - settled[0]) / seconds if seconds > 0 else None


def job(console: Console, asked: Asked) -> Page:
    """Show one job: its plan, its progress, its canary, and its report."""
    look, name = console.look, asked.path["name"]
    standing = look.standing()
    state = standing.jobs.get(name)
    if state is None:
        raise UsageWrong("There is no such job.")
    known = JobStore(look.client).find(name)
    report = read_report(look.client, look.settings, name) if known else None
    document = report.document() if report else {}
    values = {
        "line": JobLine(name, state, per_second(standing.samples, name)),
        "spec": known.spec if known else None,
        "document": document,
        "plots": list(_plots(document)),
    }
    return Page("job.html", f"Job {name}", values, live_seconds=console.live_seconds)


def _plots(document: Mapping[str, Any]) -> Iterator[Plot]:
    spans = document.get("over_time", ())
    for title, kind in (("delivered", "good"), ("skipped", "calm"), ("dead", "bad")):
        if len(spans) > 1:
            yield Plot(title.title(), kind, [float(each[title]) for each in spans], "/min")


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
    gone: dict[str, int] = {}
    looked = list(islice(marks, MOST_SCANNED + 1))
    for key, text, partition in looked:
        mark = Mark.loads(text)
        if not mark.is_name and mark.run < number:
            gone.setdefault(digest_of(key).hex(), partition)
    found = scan(gone.items())
    return Scan(found.found, is_whole=len(looked) <= MOST_SCANNED)

"""The state of a job: the rows that were read, and the outcomes of its deliveries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from ops.state.delays import state_of
from ops.state.partitions import all_partitions, snapshots, sum_counts
from producer.backfill.book import JobBook
from producer.backfill.job import Job
from worker.contract.settings import Settings
from worker.contract.triggers.pauses import Pause, read_pauses
from worker.contract.words import lane_of_job

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
    book = JobBook(client)
    found = [job for name in book.names() if (job := book.find(name))]
    found.sort(key=lambda job: job.spec.started_at, reverse=True)
    return [read_view(client, settings, job) for job in found]

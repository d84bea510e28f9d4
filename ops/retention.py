"""Retention: dead letters, quarantined records and backfills are dropped once they are too old.

It is a background job of the workers, a step every minute. Health names what goes within
`retention.warning`; see `segrelay.ops.state.background`.

Dead letters are discarded by the script by which a person discards them, so that the counts and the
rows about outcomes stay right; see `leave.lua`. The history and the requests to the receiver are
trimmed without a word. Backfills that are over are forgotten once they are as old as the history,
by the scripts by which a watch forgets its own; see `JobStore.forget`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from celery import shared_task

from segrelay.ops.dead_letters.commands import DeadLetters, Expiry
from segrelay.ops.state import opened
from segrelay.ops.state.background import JOBS, LETTERS, RECORDS, RetentionState, limits_of
from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.producer.steps import LOCK_MS, Step, StepStore
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import RETENTION_TASK, BackgroundJob, ResultLine, Turn, Turns
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.acts import Act, note_act
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import script_call
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import read_pauses
from segrelay.worker.errors import SegrelayError

LOG: Final = structlog.get_logger()
DROPPED_AT_ONCE: Final = 200
"""The most dead letters, and the most records, that one step drops."""
JOBS_AT_ONCE: Final = 10
"""The most backfills that one step forgets."""
_MINUTE_MS: Final = 60_000
_FIELDS_AT_ONCE: Final = 1_000
"""The most fields, or entries of the outcome log, that one call removes."""


@dataclass(slots=True)
class Retention:
    """Drops what was kept for long enough, a step at a time."""

    client: Redis
    settings: Settings

    def step(self) -> Step:
        """Drop some of the things that are old enough.

        Raises:
            RedisUnavailable: A later step goes on where this one was.
        """
        store = StepStore(self.client, keys.RETENTION, "retention", RetentionState)

        def step(state: RetentionState, now_ms: int) -> Step:
            partitions = all_partitions(self.client, self.settings)
            settings = self.settings.retention
            warning_ms = round(1_000 * settings.warning_seconds)
            is_due = state.is_due(now_ms, warning_ms, limits_of(settings))
            drops = self.drop(partitions, now_ms) if is_due else ()
            dropped = {what: count for what, count in drops if count}
            self._trim_logs(partitions, now_ms)
            if partitions:
                # What a reader writes that stood still for longer has a time that the ledger does
                # not remember any more: a partition each minute forgets which jobs it is closed to.
                kept_ms = round(1_000 * self.settings.delivery.ledger_retention_seconds)
                partition = partitions[now_ms // _MINUTE_MS % len(partitions)]
                JobStore(self.client).reopen(partition, now_ms - kept_ms)
            more = max(dropped.values(), default=0) >= DROPPED_AT_ONCE
            for what, count in dropped.items():
                LOG.info("retention.dropped", what=what, count=count)
            store.save(state, next_ms=0 if more else now_ms + _MINUTE_MS, ends=True)
            line = ", ".join(f"{count:,} {what}" for what, count in dropped.items())
            return Step(f"dropped: {line or 'nothing'}", more, _MINUTE_MS / 1_000)

        return store.step(step)

    def drop(self, partitions: Sequence[PartitionKeys], now_ms: int) -> Iterator[tuple[str, int]]:
        """Drop some things that may go; yield the number of each kind."""
        drops = {LETTERS: self._drop_letters, RECORDS: self._drop_records, JOBS: self._forget_jobs}
        for what, kept_ms in limits_of(self.settings.retention).items():
            # The lock that this step holds has not lapsed before: nobody has read another
            # configuration since, and keeps them for longer.
            yield what, drops[what](partitions, Expiry(now_ms - kept_ms, now_ms + LOCK_MS))

    def _drop_letters(self, partitions: Sequence[PartitionKeys], expiry: Expiry) -> int:
        """Discard some dead letters from before a time, and return how many."""
        found = ask_each(
            self.client,
            partitions,
            lambda pipe, at: pipe.zrangebyscore(
                at.dead_letter_times, "-inf", f"({expiry.before_ms}", start=0, num=DROPPED_AT_ONCE
            ),
        )
        letters, dropped = DeadLetters(self.client, self.settings), 0
        for partition, ids in zip(partitions, found, strict=True):
            part = [one.decode() for one in ids[: DROPPED_AT_ONCE - dropped]]
            dropped += letters.discard_expired(partition, part, expiry)
        return dropped

    def _drop_records(self, _: Sequence[PartitionKeys], expiry: Expiry) -> int:
        return Quarantine(self.client).remove_expired(most=DROPPED_AT_ONCE, **expiry._asdict())

    def _forget_jobs(self, partitions: Sequence[PartitionKeys], expiry: Expiry) -> int:
        """Forget some backfills that are over since before a time, and return how many."""
        store, forgotten = JobStore(self.client), 0
        paused = read_pauses(self.client).jobs
        for job in store.ended(expiry.before_ms):
            name = job.spec.name
            if name in paused:
                continue
            act = Act("retention", "segrelay", f"backfill {name}", key=f"{name}|{job.since_ms}")
            note = partial(note_act, self.client, act)
            forgotten += store.forget(job, partitions, **expiry._asdict(), note=note)
            if forgotten == JOBS_AT_ONCE:
                break
        return forgotten

    def _trim_logs(self, partitions: Sequence[PartitionKeys], now_ms: int) -> None:
        kept_ms = limits_of(self.settings.retention).get(JOBS)
        if not kept_ms:
            return
        self.client.xtrim(keys.REQUESTS, minid=now_ms - kept_ms, approximate=False)
        script, before = opened.source("outcomes_trim"), now_ms - kept_ms
        calls = [script_call(script, at, before=before, most=_FIELDS_AT_ONCE) for at in partitions]
        opened.run(self.client, "outcomes_trim", calls)


@shared_task(name=RETENTION_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def retain(self: Any, name: str) -> ResultLine:
    """Do one step of retention, as a Celery task."""
    return do_background_job(self.app.segrelay, BackgroundJob(RETENTION_TASK, name), _step)


def _step(node: Turns, _name: str, _turn: Turn) -> Step:
    return Retention(client_of(node), node.settings).step()

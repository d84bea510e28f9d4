"""`segrelay verify` on a schedule: every `verify_every` a worker reads some people back.

A worker imports this module by its name (`TASKS_MODULES` of `segrelay.worker.contract.celery`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from celery import shared_task

from segrelay.ops.insider.reader import InsiderReader, InsiderUnreadable, ProfileReader
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.verified import VerifyState
from segrelay.ops.verify import Verified, Verifier, lists_of, read_reached, sampled
from segrelay.producer.steps import Step, StepStore
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import VERIFY_TASK, BackgroundJob, ResultLine, Turn, Turns
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import OperationsMustAct, SegrelayError

LOG: Final = structlog.get_logger()
PEOPLE: Final = 20
"""The people whom a step reads: it takes some seconds, and Insider's quota is for others, too."""
LONGEST_SLEEP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class ScheduledVerify:
    """Compares some people of one destination with the ledger in each step.

    Args:
        open_reader: Opens a reader for one step.
        older_ms: The age of a delivery from which Insider shows it for sure.
    """

    client: Redis
    settings: Settings
    destination: str
    open_reader: Callable[[], AbstractContextManager[ProfileReader]]
    older_ms: int = 1_800_000
    again_seconds: float = 2.0

    def step(self) -> Step:
        """Compare some people, keep the result, and set the time of the next step."""
        store = StepStore(
            self.client, keys.verify(self.destination), f"verify '{self.destination}'", VerifyState
        )
        wait = self.settings.destinations[self.destination].verify_every_seconds

        def work(state: VerifyState, now_ms: int) -> Step:
            try:
                found = self._verified(now_ms)
                state = VerifyState(now_ms, found.profiles, len(found.differences))
                people = plural(found.profiles, "person", "people")
                line = f"{people} read, {state.differences} differ"
            except OperationsMustAct as error:
                state.failures, state.problem = state.failures + 1, error.message
                line = error.message
                LOG.warning("verify.failed", destination=self.destination, reason=error.message)
            store.save(state, next_ms=now_ms + round(1_000 * wait), ends=True)
            return Step(line, wait_seconds=wait)

        return store.step(work)

    def _verified(self, now_ms: int) -> Verified:
        partitions = all_partitions(self.client, self.settings, [self.destination])
        until_ms = now_ms - self.older_ms
        reached = read_reached(self.client, partitions, until_ms=until_ms)
        total = Verified()
        with self.open_reader() as reader:
            verifier = Verifier(
                self.client,
                reader,
                lists_of(self.settings, self.destination),
                until_us=1_000 * until_ms,
                again_seconds=self.again_seconds,
            )
            people = sampled(reached.people, PEOPLE, random.SystemRandom())
            for step in verifier.verify(people):
                total.add(step)
        return total


def _short_sleep(seconds: float) -> None:
    """Wait for the reader's pace only: where Insider's quota is used up, the step ends."""
    if seconds > LONGEST_SLEEP_SECONDS:
        raise InsiderUnreadable("Insider's quota for reading is used up at the moment.")


def scheduled_verify(client: Redis, settings: Settings, destination: str) -> ScheduledVerify:
    """Return the verifying of a destination, ready to do steps."""

    def opened() -> InsiderReader:
        return InsiderReader(settings, settings.destinations[destination], sleep=_short_sleep)

    return ScheduledVerify(client, settings, destination, opened)


@shared_task(name=VERIFY_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def verify_some(self: Any, destination: str) -> ResultLine:
    """Compare some people of a destination with the ledger."""
    job = BackgroundJob(VERIFY_TASK, destination)
    return do_background_job(self.app.segrelay, job, _step)


def _step(node: Turns, destination: str, _turn: Turn) -> Step:
    return scheduled_verify(client_of(node), node.settings, destination).step()

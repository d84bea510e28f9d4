"""Reads people back from Insider by itself, and notes which attributes did not arrive.

Insider answers 200 and drops what its panel does not define, so nothing else that runs can tell.
Every `read_back_every` a worker reads one of those to whom something was delivered last, looks for
the attributes that were sent, and compares the list of audiences with the ledger. Redis keeps the
names of attributes for it, and no values. What one person lacks is looked for in another one a
minute later; health names it after the second.

A worker imports this module by its name (`TASKS_MODULES` of `segrelay.worker.contract.celery`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from celery import shared_task

from segrelay.ops.insider.live_check import ReadBack, list_of
from segrelay.ops.insider.reader import InsiderReader, InsiderUnreadable, ProfileReader
from segrelay.ops.state.person import Names, read_records
from segrelay.ops.state.read_backs import ReadBacks
from segrelay.ops.verify import Membership, ReachedPerson, expected
from segrelay.producer.steps import Step, StepStore, wait_seconds
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.adapters.redis.gate import read_state
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import READ_BACK_TASK, BackgroundJob, ResultLine, Turn, Turns
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.core.gate import gate_id
from segrelay.worker.destinations.insider.api import CUSTOM
from segrelay.worker.errors import OperationsMustAct, SegrelayError

LOG: Final = structlog.get_logger()
PEOPLE_A_PARTITION: Final = 20
"""The people of each partition from whom the one who was reached last is chosen."""
AGAIN_SECONDS: Final = 60.0
"""Seconds after which a second person is read where the first lacked something."""
UNREADABLE_SECONDS: Final = 86_400.0
"""Seconds after which reading is tried again where it fails and nobody has asked for it."""
LONGEST_SLEEP_SECONDS: Final = 2.0
_OPEN: Final = ("ok", "slowed")


@dataclass(frozen=True, slots=True)
class ReadingBack:
    """Reads people of one destination back, one in each step.

    Args:
        open_reader: Opens a reader for one step.
    """

    client: Redis
    settings: Settings
    destination: str
    open_reader: Callable[[], AbstractContextManager[ProfileReader]]

    def step(self) -> Step:
        """Read one person back, note what is not there, and set the time of the next step."""
        store = StepStore(
            self.client,
            keys.read_back(self.settings.redis.ids.of(self.destination)),
            f"reading back '{self.destination}'",
        )
        taken = store.take()
        if taken is None:
            return Step("another step of it is under way", taken=False)
        state, now_ms = ReadBacks.loads(taken[0]), taken[1]
        destination = self.settings.destinations[self.destination]
        wait = every_seconds = destination.read_back_every_seconds
        try:
            line = self._read_one(state, now_ms)
            state.failures, state.problem = 0, ""
            if any(one.people == 1 for one in state.missing.values()):
                wait = min(every_seconds, AGAIN_SECONDS)
        except OperationsMustAct as error:
            state.failures, state.problem = state.failures + 1, error.message
            line = error.message
            if destination.has_to_be_readable:
                wait = max(every_seconds, wait_seconds(state.failures))
                LOG.warning("read_back.failed", destination=self.destination, reason=error.message)
            else:
                wait = max(every_seconds, UNREADABLE_SECONDS)
        store.save(state.dumps(), next_ms=store.now_ms() + round(1_000 * wait), ends=True)
        return Step(line, wait_seconds=wait)

    def _read_one(self, state: ReadBacks, now_ms: int) -> str:
        destination = self.settings.destinations[self.destination]
        gate = read_state(self.client, gate_id(destination.base_url, destination.gate_scope))
        if gate.state not in _OPEN:
            return f"the destination is {gate.state}: nobody is read back"
        person = max(
            self._reached(now_ms - round(1_000 * destination.read_back_after_seconds)),
            key=lambda one: one.at_ms,
            default=None,
        )
        if person is None:
            return "nobody to read back"
        memberships = self._memberships(person)
        lists = {CUSTOM + one.attribute for one in memberships}
        sent = [name for name in person.names if name not in lists]
        with self.open_reader() as reader:
            found = ReadBack(reader.profile(person.who, [*sent, *sorted(lists)]))
        if self.client.hget(person.partition.who, person.digest.hex()) != person.text:
            return "something newer was delivered meanwhile"
        if found.attributes is None:
            state.add(person.trigger, [""], {""}, now_ms)
            return "Insider does not know the person"
        lacking = {name for name in sent if found.attributes.get(name) is None}
        lacking |= {
            CUSTOM + one.attribute
            for one in memberships
            if found.lists(one.audience, one.attribute) != (one.side == "inside")
        }
        state.add(person.trigger, ["", *sent, *lists], lacking, now_ms)
        return f"read one person back; not as sent: {plural(len(lacking), 'attribute')}"

    def _memberships(self, person: ReachedPerson) -> list[Membership]:
        """Return the memberships that the ledger is sure of, in audiences kept in a list."""
        (record,) = read_records(self.client, person.partition, [person.digest])
        lines = Names(self.client).lines(record)
        known = self.settings.triggers
        lists = {
            name: list_of(self.settings, known[name])
            for name in {line.trigger for line in lines} & known.keys()
        }
        return expected(lines, lists, until_us=1_000 * person.at_ms)

    def _reached(self, until_ms: int) -> Iterator[ReachedPerson]:
        """Yield some people of whom the last delivery is old enough, from each partition."""
        numbers = range(self.settings.redis.partitions)
        ids = self.settings.redis.ids
        partitions = [ids.partition(self.destination, number) for number in numbers]
        pipe = self.client.pipeline(transaction=False)
        for partition in partitions:
            pipe.hrandfield(partition.who, PEOPLE_A_PARTITION, withvalues=True)
        for partition, answer in zip(partitions, pipe.execute(), strict=True):
            for digest, text in zip(answer[::2], answer[1::2], strict=True):
                person = ReachedPerson.loads(partition, digest, text)
                if person.trigger and person.who and person.at_ms <= until_ms:
                    yield person


def _short_sleep(seconds: float) -> None:
    """Wait for the reader's pace only: where Insider's quota is used up, the step ends."""
    if seconds > LONGEST_SLEEP_SECONDS:
        raise InsiderUnreadable("Insider's quota for reading is used up at the moment.")


def reading_back_for(client: Redis, settings: Settings, destination: str) -> ReadingBack:
    """Return the reading back of a destination's people, ready to do steps."""

    def opened() -> InsiderReader:
        return InsiderReader(settings, settings.destinations[destination], sleep=_short_sleep)

    return ReadingBack(client, settings, destination, opened)


@shared_task(name=READ_BACK_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def read_back(self: Any, destination: str, destination_id: str) -> ResultLine:
    """Read one person of a destination back."""
    job = BackgroundJob(READ_BACK_TASK, destination, destination_id)
    return do_background_job(self.app.segrelay, job, _step)


def _step(node: Turns, destination: str, _turn: Turn) -> tuple[str, bool]:
    return reading_back_for(client_of(node), node.settings, destination).step().line, False

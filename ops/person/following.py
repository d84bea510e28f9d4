"""Renames people whose stable id came with another identity: a Celery task that works in steps.

It is the renaming of `segrelay rename person`, begun by an event in the place of a person. A change
stays in Redis until all of it is done, so a step that was killed is done again, and goes on where
the person's record stands. A step that stood still while others went on changes nothing more: the
change that it knows is gone, and each script compares what it found before.

A worker imports this module by its name (`TASKS_MODULES` of `segrelay.worker.contract.celery`).
What it needs is loaded at the first task: most workers never do it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson
import structlog
from celery import shared_task

from segrelay.ops.insider.reader import RENAMES_A_MINUTE, InsiderIdentities, InsiderUnreadable
from segrelay.ops.person.renaming import IdentityChange, PersonRenaming
from segrelay.ops.state.identity_changes import (
    Ending,
    IdentityChanges,
    destinations_with_stable_ids,
)
from segrelay.producer.steps import STEP_SECONDS, Step, StepStore, wait_seconds
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import (
    RENAMES_TASK,
    BackgroundJob,
    ResultLine,
    Turn,
    Turns,
)
from segrelay.worker.contract.keys import digest_of, partition_of
from segrelay.worker.contract.people import Forward, Moving, StableIdChange
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.acts import DONE, Act, note_act
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import read_pauses
from segrelay.worker.errors import LeaseLost, OperationsMustAct, SegrelayError

LOG: Final = structlog.get_logger()
PEOPLE_A_STEP: Final = 60
"""The number of people who are renamed together: Insider takes 30 a second."""
_LOOKED_AT: Final = 1_000
_AGAIN_SECONDS: Final = 1.0
_PAUSED_SECONDS: Final = 10.0
_REFUSED_SECONDS: Final = 60.0
_LONGEST_SLEEP_SECONDS: Final = 2.0
_RENEWED_SECONDS: Final = 2.0
_HOLDERS_SECONDS: Final = 25.0
"""The longest wait for holders of leases, in seconds: a drain with hanging requests ends at their
deadline. Drains that wait for a process do not end a step early, or nobody would be renamed
under load."""
_ACT: Final = Act(
    "rename person", "segrelay worker", reason="a stable id has another identity", outcome=DONE
)


class StepEnds(OperationsMustAct):
    """The time of a step is used up; the next step goes on."""


@dataclass(slots=True)
class Following:
    """The progress of renaming people of one destination."""

    failures: int = 0
    problem: str = ""

    def dumps(self) -> bytes:
        """Return the progress as Redis keeps it."""
        return orjson.dumps(asdict(self))

    @classmethod
    def loads(cls, text: bytes) -> Following:
        """Read the progress that `dumps` wrote; b"" = no step was done yet."""
        return cls(**orjson.loads(text or b"{}"))


class FollowingSteps:
    """Renames people of one destination, step by step."""

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        destination: str,
        open_insider: Callable[[], InsiderIdentities],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._settings = settings
        self._destination = destination
        self._open_insider = open_insider
        self._monotonic = monotonic
        self.changes = IdentityChanges(client, settings.redis, destination)
        self.store = StepStore(
            client,
            keys.changes(settings.redis.ids.of(destination)),
            f"the renaming of people of '{destination}'",
        )
        self._state = Following()
        self._saved_at = 0.0
        self._began_at = 0.0
        self._is_over: Callable[[], bool] = lambda: False

    def step(self, *, is_over: Callable[[], bool] = lambda: False) -> Step:
        """Do one step; people who are not renamed by its end are left to a later one.

        Raises:
            RedisUnavailable: The next step goes on.
        """
        taken = self.store.take()
        if taken is None:
            return Step("another step of it is under way", taken=False)
        self._state = Following.loads(taken[0])
        self._saved_at = self._monotonic()
        self._began_at, self._is_over = self._saved_at, is_over
        try:
            step = self._do()
            wait_ms = round(1_000 * step.wait_seconds)
            next_ms = self.store.now_ms() + wait_ms if wait_ms else 0
            self.store.save(self._state.dumps(), next_ms=next_ms, ends=True)
        except LeaseLost as error:
            return Step(error.message, taken=False)
        return step

    def _do(self) -> Step:
        if self._destination in read_pauses(self._client, self._settings.redis.ids).destinations:
            return Step("the destination is paused", wait_seconds=_PAUSED_SECONDS)
        try:
            ended = self._rename()
        except StepEnds:
            return Step("more to do", more=True)
        except OperationsMustAct as error:
            self._state.failures += 1
            self._state.problem = error.message
            LOG.warning("renames.wait", failures=self._state.failures, reason=error.message)
            return Step(error.message, wait_seconds=wait_seconds(self._state.failures))
        self._state = Following()
        more = bool(self.changes.waiting(1))
        wait = 0.0 if ended or not more else _AGAIN_SECONDS
        return Step(
            f"{plural(ended, 'change')} of identity ended",
            more=more and not wait,
            wait_seconds=wait,
        )

    def _rename(self) -> int:
        """Make some of the waiting identity changes; return how many have ended."""
        waiting = self.changes.waiting(_LOOKED_AT)
        going: dict[IdentityChange, tuple[bytes, StableIdChange]] = {}
        named: set[str] = set()
        ended = 0
        for stable, change in waiting.items():
            if len(going) == PEOPLE_A_STEP:
                break
            verdict = self.changes.judge(stable, change)
            if verdict in ("refused", "left"):
                ended += self.changes.end(stable, change, verdict, self._kept_ms)
            elif verdict == "go":
                one = self._identity_change(stable, change)
                if one and not named & {one.old, one.new, change.old}:
                    going[one] = (stable, change)
                    named |= {one.old, one.new, change.old}
        return ended + (self._rename_all(going) if going else 0)

    def _rename_all(self, going: Mapping[IdentityChange, tuple[bytes, StableIdChange]]) -> int:
        ended = renamed = 0
        with self._open_insider() as insider:
            renaming = PersonRenaming(
                self._client,
                self._settings,
                {self._destination: insider},
                self._identifier,
                sleep=self._sleep,
                destinations=(self._destination,),
                stands=lambda one: self._stands(*going[one]),
                tells=self._tell,
                waits_for_answers=False,
            )
            for receipt in renaming.run(list(going)):
                is_refused = receipt.change in renaming.refused
                if receipt.outcome == "refused" and not is_refused:
                    continue
                stable, change = going[receipt.change]
                ending: Ending = "refused" if is_refused else "renamed"
                if self.changes.end(stable, change, ending, self._kept_ms):
                    ended += 1
                    renamed += not is_refused
        if renamed:
            note_act(self._client, replace(_ACT, subject=self._destination, count=renamed))
        return ended

    def _identity_change(self, stable: bytes, change: StableIdChange) -> IdentityChange | None:
        """Return the identity change to make; None if it is made already, or by somebody else.

        Where a person has renamed the former identity meanwhile, its present one is renamed.
        """
        old, passed = change.old, set[str]()
        while (forward := self._forward(old)) and forward.to != change.new:
            if forward.moving is not Moving.DONE or old in passed:
                return None
            passed.add(old)
            old = forward.to
        if old == change.new:
            return None
        return IdentityChange(old, change.new, stable=stable.hex(), trigger=change.trigger)

    def _forward(self, key: str) -> Forward | None:
        redis = self._settings.redis
        number = partition_of(key, redis.partitions)
        partition = redis.ids.partition(self._destination, number)
        text: Any = self._client.hget(partition.forwards, digest_of(key).hex())
        return Forward.loads(text) if text else None

    def _stands(self, stable: bytes, change: StableIdChange) -> bool:
        return self.changes.change_of(stable) == change

    @property
    def _kept_ms(self) -> int:
        return round(1_000 * self._settings.delivery.ledger_retention_seconds)

    def _identifier(self, key: str) -> Mapping[str, Any]:
        kind, _, value = key.partition(":")
        return {kind: value}

    def _tell(self) -> None:
        """Renew the lock of the step; called before each person."""
        if self._monotonic() - self._saved_at >= _RENEWED_SECONDS:
            self.store.save(self._state.dumps(), next_ms=0)
            self._saved_at = self._monotonic()

    def _sleep(self, seconds: float) -> None:
        """Wait for the holder of a lease; raise if the step's time is used up."""
        waited = self._monotonic() - self._began_at
        if waited > _HOLDERS_SECONDS or (waited > STEP_SECONDS and self._is_over()):
            raise StepEnds("The step is over.")
        time.sleep(seconds)


def _short_sleep(seconds: float) -> None:
    """Wait until Insider takes the next request; raise if the wait is too long for a step."""
    if seconds > _LONGEST_SLEEP_SECONDS:
        raise InsiderUnreadable("Insider takes no more requests at the moment.")
    time.sleep(seconds)


def following_for(client: Redis, settings: Settings, destination: str) -> FollowingSteps:
    """Return the steps that rename people of a destination."""
    shares = len(destinations_with_stable_ids(settings))

    def opened() -> InsiderIdentities:
        return InsiderIdentities(
            settings,
            settings.destinations[destination],
            a_minute=RENAMES_A_MINUTE / shares,
            sleep=_short_sleep,
        )

    return FollowingSteps(client, settings, destination, opened)


@shared_task(name=RENAMES_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def renames(self: Any, destination: str, destination_id: str) -> ResultLine:
    """Rename some people of a destination, and wake the next step."""
    job = BackgroundJob(RENAMES_TASK, destination, destination_id)
    return do_background_job(self.app.segrelay, job, _step)


def _step(node: Turns, destination: str, turn: Turn) -> tuple[str, bool]:
    step = following_for(client_of(node), node.settings, destination).step(is_over=turn.is_over)
    return step.line, step.more

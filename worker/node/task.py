"""The Celery edge: `drain`, the one task that delivers.

Losing its message is harmless, and so is running it twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import structlog

from segrelay.worker.batch.send import Stop
from segrelay.worker.batch.state import Tally
from segrelay.worker.contract.celery import DRAIN_TASK, ResultLine, queue_name
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import BACKFILL, LIVE
from segrelay.worker.core.rounds import WakeUp
from segrelay.worker.errors import Bug, DrainEndedBadly, SegrelayError, WeMustAct
from segrelay.worker.logs import log_bug
from segrelay.worker.node.shared import NodeMemory, NodeWaker, TemplateUse, listening

NO_FREE_PERMIT: Final = "no free permit"
LIVE_TURNS: Final = 4
"""The number of waiting live calls of a destination that may follow a drain in its permit."""
LOG: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """One process' runner of drains, and its reports about templates.

    Args:
        drain: See `segrelay.worker.node.runtime.Runtime.drain`.
        templates: Returns what this process works with.
    """

    drain: Callable[..., tuple[Tally, str]]
    templates: Callable[[], TemplateUse] = TemplateUse


@dataclass(frozen=True, slots=True)
class DrainResult:
    """The result of the task `drain`, as Flower shows it.

    Args:
        tally: Of the drain that was asked for.
        following: Of the drains that took its permit over: their partitions and tallies.
    """

    tally: Tally
    following: Sequence[tuple[int, Tally]] = ()

    @property
    def is_bad(self) -> bool:
        """Say whether the drain failed, or deliveries died: somebody has to look."""
        return self._total().is_bad

    def __str__(self) -> str:
        """Return the line that Flower shows."""
        others = ", ".join(str(partition) for partition, _ in self.following)
        return f"{self._total()}{f'; with partition {others}' if others else ''}"

    def _total(self) -> Tally:
        tallies = [self.tally, *(tally for _, tally in self.following)]
        return Tally(
            delivered=sum(one.delivered for one in tallies),
            skipped=sum(one.skipped for one in tallies),
            dead=sum(one.dead for one in tallies),
            requests=sum(one.requests for one in tallies),
            waited_seconds=sum(one.waited_seconds for one in tallies),
            ended=", ".join(dict.fromkeys(one.ended for one in tallies if one.ended)),
            failed=any(one.failed for one in tallies),
        )


def register(app: Any, task: Callable[[], DrainTask]) -> None:
    """Make `drain` a task of the app, under its name and the former one."""

    @app.task(name=DRAIN_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
    def drain(self: Any, destination: str, partition: int) -> ResultLine:
        """Drain one partition of one destination for a slice."""
        info = self.request.delivery_info or {}
        queue = BACKFILL if info.get("routing_key") == queue_name(BACKFILL) else LIVE
        result = _run(task(), WakeUp(queue, destination, partition))
        if result is None:
            return ResultLine(NO_FREE_PERMIT)
        if result.is_bad:
            raise DrainEndedBadly(str(result))
        return ResultLine(str(result))


def _run(task: DrainTask, call: WakeUp) -> DrainResult | None:
    try:
        return task.run(call)
    except SegrelayError as error:
        _log_failure(call, error)
        raise
    except Exception as error:  # noqa: BLE001 - this is the edge
        # Its message may hold a profile's fields, and Flower would show it.
        raise Bug(log_bug(error, "drain.failed", **_named(call))) from None


def _log_failure(call: WakeUp, error: SegrelayError) -> None:
    tell = LOG.error if isinstance(error, WeMustAct) else LOG.warning
    tell("drain.failed", **_named(call), error=type(error).__name__, message=error.message)


def _named(call: WakeUp) -> dict[str, Any]:
    return {"destination": str(call.destination)[:100], "partition": call.partition}


@dataclass(slots=True)
class DrainTask:
    """The work of the task `drain`: one object, made before the fork and used in each child."""

    settings: Settings
    build: Callable[[], Ready]
    waker: NodeWaker
    node: NodeMemory
    ready: Ready | None = None

    def run(self, call: WakeUp) -> DrainResult | None:
        """Drain, and wake again where there is more to do; returns None if no permit is free.

        Raises:
            UsageWrong: There is no such destination or partition.
        """
        self.node.board.begin()
        permit = self.node.permits.take(call)
        if permit is None:
            self.node.waiting.add(call)
            return None
        again: list[WakeUp] = []
        try:
            with permit, listening(self.node.board) as stop:
                tally = self._drain(call, stop, again)
                following = self._live_first(call, stop, again)
        finally:
            self._hand_over(call, again)
        return DrainResult(tally, following)

    def _live_first(self, call: WakeUp, stop: Stop, again: list[WakeUp]) -> list[tuple[int, Tally]]:
        """Drain live work that waits for this permit, before another drain can take the permit.

        Returns:
            Partitions, and what was done there.
        """
        done: list[tuple[int, Tally]] = []
        for _ in range(LIVE_TURNS):
            following = None if stop.is_told else self.node.waiting.next_live(call.destination)
            if following is None:
                break
            done.append((following.partition, self._drain(following, stop, again)))
        return done

    def _drain(self, call: WakeUp, stop: Stop, again: list[WakeUp]) -> Tally:
        begun = time.monotonic()
        ready = self.get_ready()
        is_live = call.queue == LIVE
        tally, queue = ready.drain(
            call.destination,
            call.partition,
            stop,
            live_waits=self.node.waiting.holds_live,
            kinds=(LIVE,) if is_live else (LIVE, BACKFILL),
        )
        use = ready.templates()
        if use != TemplateUse():
            self.node.templates.report(os.getpid(), use)
        if queue:
            again.append(call._replace(queue=queue))
        did_something = tally.requests or tally.delivered or tally.skipped or tally.dead
        (LOG.info if did_something else LOG.debug)(
            "drain.ended",
            destination=call.destination,
            partition=call.partition,
            queue=call.queue,
            elapsed_seconds=round(time.monotonic() - begun, 3),
            **asdict(tally),
        )
        return tally

    def get_ready(self) -> Ready:
        """Return this process' clients and templates; the first call opens them."""
        if self.ready is None:
            self.ready = self.build()
        return self.ready

    def _hand_over(self, call: WakeUp, again: list[WakeUp]) -> None:
        """Wake the first call that waited for the permit, and only then for this partition."""
        job_runs = self.node.permits.background_job_runs
        waiting = self.node.waiting.next_after(call, job_runs=job_runs)
        self.waker.wake([*([waiting] if waiting else []), *again])

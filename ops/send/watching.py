"""Waiting until the deliveries of a command are settled."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from ops.send.sending import Deadline
from ops.state.partitions import all_partitions, ask_each
from ops.state.waiting import Choice, find_streams
from ops.status.health.facts import Facts
from ops.status.health.judgement import problems_of
from ops.status.health.problem import ILL, HealthProblem
from ops.status.status import read_status
from ops.terminal.console import progress
from ops.terminal.interrupts import Interruption
from producer.publishing.published import Published
from worker.contract.patience import READY_SECONDS
from worker.contract.processes.workers import WORKER, read_processes
from worker.contract.settings import Settings
from worker.errors import RedisUnavailable

_POLL_SECONDS: Final = 0.3
_TOLD_AGAIN_SECONDS: Final = 15.0
_ASKED_AGAIN_SECONDS: Final = 3.0
NO_WORKER: Final = (
    "No worker runs, so nothing is delivered now: start one with `segrelay up` or "
    "`segrelay worker`."
)


def waiting_of_job(client: Redis, settings: Settings, job: str) -> int:
    """Return the number of deliveries of a job that wait."""
    places = all_partitions(client, settings)
    return sum(stream.length for stream in find_streams(client, places, Choice(job=job)))


def waiting_of(client: Redis, published: Published) -> int:
    """Estimate how many of these deliveries wait; 0 if and only if none does.

    Others in their streams may be counted, as long as one of them is there.
    """
    answers = ask_each(
        client,
        published.entries.items(),
        lambda pipe, entry: pipe.xlen(entry[0]),
        lambda pipe, entry: pipe.xrange(entry[0], entry[1].first, entry[1].last, count=1),
    )
    looks = zip(answers[::2], answers[1::2], strict=True)
    waiting: int = sum(length for length, found in looks if found)
    return min(waiting, published.accepted)


def hindrances(
    client: Redis, settings: Settings, triggers: Collection[str], job: str = ""
) -> list[str]:
    """Return the reasons why deliveries of these triggers or of a job are not made."""
    document = read_status(client, settings)
    named = {settings.triggers[name].destination for name in triggers if name in settings.triggers}
    concerned = {
        "destinations": _only(document["destinations"], named),
        "triggers": _only(document["triggers"], triggers),
        "jobs": _only(document["jobs"], {job}),
        "former_names": {},
        "partitions": {},
        "renamed_people": {},
        "orphaned": 0,
    }
    # Of everything else the facts are left empty: only what concerns these deliveries is asked.
    found = [
        _sentence(one)
        for one in problems_of(Facts(document | concerned))
        if one.severity == ILL and one.name != "no_worker"
    ]
    if not any(one.kind == WORKER for one in read_processes(client)):
        found.append(NO_WORKER)
    return found


def _sentence(problem: HealthProblem) -> str:
    kind, _, state = problem.name.partition("_")
    if kind in {"destination", "trigger", "job"}:
        return f"{kind} {problem.subject} is {state}: {problem.message}"
    return f"{problem.message}; {problem.command}"


def triggers_of(streams: Iterable[str]) -> frozenset[str]:
    """Return the triggers of streams, by the streams' keys or names."""
    return frozenset(name.rpartition("|")[2] for name in streams)


def triggers_of_job(client: Redis, settings: Settings, job: str) -> frozenset[str]:
    """Return the triggers for which deliveries of a job wait."""
    places = all_partitions(client, settings)
    return frozenset(one.trigger for one in find_streams(client, places, Choice(job=job)))


def _only(document: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: one for name, one in document.items() if name in names}


class _ReasonPrinter:
    """Prints new reasons at once, and repeats unchanged ones from time to time."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: Sequence[str] = ()
        self._told_at = -math.inf

    def tell(self, found: Sequence[str]) -> None:
        if found == self._told and time.monotonic() - self._told_at < _TOLD_AGAIN_SECONDS:
            return
        self._told, self._told_at = found, time.monotonic()
        for sentence in found:
            self._tell(f"waiting: {sentence}")


@dataclass(frozen=True, slots=True)
class DeliveryWait:
    """The deliveries that a command waits for."""

    waiting: Callable[[], int]
    hindered: Callable[[], Sequence[str]]
    deadline: Deadline
    interruption: Interruption
    tell: Callable[[str], None]
    away_seconds: float = READY_SECONDS

    def until_settled(self) -> bool:
        """Show the progress until no delivery waits; return False if that takes too long."""
        left = self.waiting()
        with progress("settled", left) as shown:
            return self._look(left, shown.advance)

    def _look(self, left: int, advance: Callable[[int], None]) -> bool:
        notices = _ReasonPrinter(self.tell)
        asked_at, answered_at = -math.inf, time.monotonic()
        while left:
            if self._ends(left):
                return False
            before = left
            try:
                if time.monotonic() - asked_at >= _ASKED_AGAIN_SECONDS:
                    asked_at = time.monotonic()
                    notices.tell(self.hindered())
                left = min(left, self.waiting())
                answered_at = time.monotonic()
            except RedisUnavailable as error:
                if time.monotonic() >= answered_at + self.away_seconds:
                    raise
                notices.tell([error.message])
            advance(before - left)
            if left:
                time.sleep(_POLL_SECONDS)
        return True

    def _ends(self, left: int) -> bool:
        if self.interruption.is_requested:
            self.tell(f"Interrupted. {left:,} deliveries still wait; they stay in Redis.")
            self.interruption.obey()
        if not self.deadline.passed():
            return False
        self.tell(
            f"{left:,} deliveries still wait, and --timeout has passed. `segrelay status` tells "
            "what they wait for; they stay in Redis."
        )
        return True

"""Delayed work: triggers that wait in a partition, and deliveries that were set aside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from redis import Redis

from ops.state.partitions import ask_each
from producer.backfill.job import Job
from worker.contract.keys import PartitionKeys
from worker.contract.triggers.pauses import Pause
from worker.core.backoff import TRIES_ALONE, Setback, Wait


@dataclass(frozen=True, slots=True)
class Delays:
    """The delayed triggers and deliveries of one partition.

    Args:
        setbacks: The setbacks by `lane|trigger|id`.
    """

    waits: Mapping[str, Wait] = field(default_factory=dict)
    setbacks: Mapping[str, Setback] = field(default_factory=dict)


def read_delays(client: Redis, places: Sequence[PartitionKeys]) -> list[Delays]:
    """Return the delayed work of each partition."""
    answers = ask_each(
        client,
        places,
        lambda pipe, place: pipe.hgetall(place.retry),
        lambda pipe, place: pipe.hgetall(place.aside),
    )
    return [
        Delays(
            {name.decode(): Wait(*orjson.loads(text)) for name, text in waits.items()},
            {name.decode(): Setback(*orjson.loads(text)) for name, text in setbacks.items()},
        )
        for waits, setbacks in zip(answers[::2], answers[1::2], strict=True)
    ]


def times(count: int) -> str:
    """Return a count as a person reads it: "once" or "3 times"."""
    return "once" if count == 1 else f"{count:,} times"


def state_of_delayed(
    trigger: str, found: Sequence[Delays], waiting: Collection[int]
) -> dict[str, Any] | None:
    """Return the state of a trigger with delayed work; None = it has none.

    `found` has the delayed work of each partition, and `waiting` the indices of the partitions in
    which deliveries of the trigger wait.
    """
    here = [found[at] for at in sorted(waiting)]
    refused = [
        setback
        for delays in here
        for place, setback in delays.setbacks.items()
        if setback.refusal and place.split("|")[1] == trigger
    ]
    if refused:
        last = max(refused, key=lambda setback: setback.failures)
        number = f"{len(refused):,} deliveries were" if len(refused) > 1 else "a delivery was"
        return {
            "state": "refused",
            "reason": f"{number} refused, {times(last.failures)} so far: {last.refusal}",
            "lasting": last.failures >= TRIES_ALONE,
        }
    waits = [delays.waits[trigger] for delays in here if trigger in delays.waits]
    if waits:
        last_wait = max(waits, key=lambda wait: wait.attempts)
        reason = f": {last_wait.reason}" if last_wait.reason else ""
        return {
            "state": "waits",
            "reason": f"nothing went through, tried {times(last_wait.attempts)}{reason}",
            "lasting": False,
        }
    return None


AT_CANARY: Final = "at its canary"
INTERRUPTED: Final = "interrupted"


def state_of(job: Job | None, *, waiting: int, pause: Pause | None) -> str:
    """Return the state of a job in a word or two, the same in every output.

    Without a job it is only a lane, into which `segrelay send --job` has sent.
    """
    phase = job.phase if job else "read"
    match phase:
        case "reading":
            return "reading" if job and job.claimed else INTERRUPTED
        case "read" | "canary" if pause and waiting:
            return "paused"
        case "read":
            return "delivering" if waiting else "done"
        case "canary":
            return "canary under way" if waiting else AT_CANARY
        case _:
            return phase


def reason_of_state(name: str, job: Job | None, state: str, pause: Pause | None) -> str:
    """Return the reason for a job's state, or the command that ends it; "" = the state says all."""
    match state:
        case "paused":
            return (pause and pause.reason) or "paused by a person"
        case "failed":
            return job.problem if job else ""
        case "interrupted":
            return f"nobody reads it: `segrelay backfill resume {name}`, or abort it"
        case "at its canary":
            return f"`segrelay backfill resume {name}` delivers the rest, or abort it"
        case _:
            return ""

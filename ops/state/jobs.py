"""The state of a job in a word or two, the same in every output."""

from __future__ import annotations

from typing import Final

from producer.backfill.job import Job
from worker.contract.triggers.pauses import Pause

AT_CANARY: Final = "at its canary"
INTERRUPTED: Final = "interrupted"


def state_of(job: Job | None, *, waiting: int, pause: Pause | None) -> str:
    """Return the state of a job.

    Args:
        job: None where it is only a lane, into which `segrelay send --job` has sent.
        waiting: Its deliveries that wait.
        pause: The pause of its deliveries; None = it is not paused.
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
    """Return the reason of a job's state, or what ends it; "" = the state says all."""
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

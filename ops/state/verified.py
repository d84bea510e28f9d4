"""The result of the last scheduled `verify` of each destination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segrelay.producer.steps import StepState
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings


@dataclass(slots=True)
class VerifyState(StepState):
    """The result of the last step at one destination.

    Args:
        at_ms: The time of the last step that could read; Redis' clock.
        people: The people whom it read.
        differences: The memberships that Insider does not hold as the ledger says.
        failures: Steps in a row since then in which nobody could be read.
        problem: The problem that stopped the last of them.
    """

    at_ms: int = 0
    people: int = 0
    differences: int = 0
    failures: int = 0
    problem: str = ""


def read_verified(
    client: Redis, settings: Settings, unreadable: list[str]
) -> Mapping[str, VerifyState]:
    """Return the result at each destination that is verified on a schedule."""
    names = [name for name, one in settings.destinations.items() if one.verify_every_seconds]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hget(keys.verify(name), "state")
    texts: list[Any] = pipe.execute() if names else []
    return {
        name: VerifyState.loads(text or b"", f"verify {name}", unreadable)
        for name, text in zip(names, texts, strict=True)
    }

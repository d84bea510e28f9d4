"""Waiting until replicas hold what was written, so that a failover loses nothing acknowledged."""

from __future__ import annotations

from typing import Any, Final

import redis
import redis.asyncio

from worker.errors import NotReplicated

WAIT_MS: Final = 4_000
"""The time that replicas get to confirm a write, below the 5 s after which a client gives up."""
_REFUSED: Final = (
    "{confirmed} of {wanted} replicas that redis.replicas demands have confirmed what was written:"
    " see that the replicas run, follow the master and have appendonly on"
)


class SingleClient(redis.Redis):
    """A client of one server.

    Attributes:
        replicas: Number of replicas that must have what was accepted, noted or settled on their
            disks before it counts as written; 0 = none.
    """

    replicas: int = 0


class AsyncSingleClient(redis.asyncio.Redis):
    """An asynchronous client of one server; see `SingleClient`."""

    replicas: int = 0


def replicas_of(client: redis.Redis | redis.asyncio.Redis) -> int:
    """Return how many replicas must confirm a write."""
    return int(getattr(client, "replicas", 0))


def wait_command(replicas: int) -> tuple[str | int, ...]:
    """Return the command that waits for replicas; it counts what its own connection wrote."""
    return ("WAITAOF", 0, replicas, WAIT_MS)


def require_confirmed(answer: Any, replicas: int) -> None:
    """Check the answer to `wait_command`.

    Raises:
        NotReplicated: Too few replicas have confirmed; the write may outlive a failover or not.
    """
    if isinstance(answer, Exception):
        raise answer
    confirmed = int(answer[1])
    if confirmed < replicas:
        raise NotReplicated(_REFUSED.format(confirmed=confirmed, wanted=replicas) + ".")

"""Waiting until replicas hold what was written, so that a failover loses nothing acknowledged."""

from __future__ import annotations

from typing import Any, Final

import redis
import redis.asyncio

from worker.errors import NotReplicated

WAITS_MS: Final = (1, 2, 5, 20, 100, 1_000, 2_800)
"""The waits in ms, one after the other, in which replicas have to confirm a write.

A replica answers before its disk has the write, and again only after a second, unless it is asked
again: each wait asks. Together they stay below the 5 s after which a client gives up.
"""
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


def wait_commands(replicas: int) -> list[tuple[str | int, ...]]:
    """Return the commands that wait for replicas, of whose answers the last one counts.

    They count what was written over their own connection, so they follow it there.
    """
    return [("WAITAOF", 0, replicas, wait_ms) for wait_ms in WAITS_MS] if replicas else []


def require_confirmed(answer: Any, replicas: int) -> None:
    """Check the last answer to `wait_commands`.

    Raises:
        NotReplicated: Too few replicas have confirmed; the write may outlive a failover or not.
    """
    if isinstance(answer, Exception):
        raise answer
    confirmed = int(answer[1])
    if confirmed < replicas:
        raise NotReplicated(_REFUSED.format(confirmed=confirmed, wanted=replicas) + ".")

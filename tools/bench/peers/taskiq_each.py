"""Peer: taskiq on Redis Streams with asyncio, one task for each event."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import httpx
from taskiq_redis import RedisStreamBroker  # type: ignore[import-not-found] # of the peers

from tools.bench.peers.rendering import HEADERS, PATH, body_of

_ENQUEUED_AT_ONCE: Final = 200
broker: Final = RedisStreamBroker(url=os.environ["PEER_REDIS"])
_clients: dict[int, httpx.AsyncClient] = {}


@broker.task(task_name="deliver", retry_on_error=True, max_retries=10)  # type: ignore[untyped-decorator]
async def deliver(event: str) -> None:
    """Render one event, and post it."""
    answer = await _client().post(PATH, content=body_of([event.encode()]), headers=HEADERS)
    answer.raise_for_status()


def _client() -> httpx.AsyncClient:
    return _clients.setdefault(
        os.getpid(), httpx.AsyncClient(base_url=os.environ["PEER_SANDBOX"], timeout=20)
    )


def enqueue(events: list[bytes]) -> None:
    """Send a task for each event."""
    asyncio.run(_enqueue(events))


async def _enqueue(events: list[bytes]) -> None:
    await broker.startup()
    for first in range(0, len(events), _ENQUEUED_AT_ONCE):
        part = events[first : first + _ENQUEUED_AT_ONCE]
        await asyncio.gather(*(deliver.kiq(event.decode()) for event in part))
    await broker.shutdown()


if __name__ == "__main__":
    enqueue(sys.stdin.buffer.read().splitlines())

"""Peer: Celery with one task for each event, set up as its guides say."""

from __future__ import annotations

import os
import sys
from typing import Final

import httpx
from celery import Celery

from tools.bench.peers.rendering import PATH, body_of, client_of

app: Final = Celery("peer", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    task_ignore_result=True,
)


@app.task(  # type: ignore[untyped-decorator]
    name="deliver", autoretry_for=(httpx.HTTPError,), retry_backoff=True, max_retries=10
)
def deliver(event: str) -> None:
    """Render one event, and post it."""
    client_of(os.getpid()).post(PATH, content=body_of([event.encode()])).raise_for_status()


def enqueue(events: list[bytes]) -> None:
    """Send a task for each event."""
    with app.producer_pool.acquire(block=True) as producer:
        for event in events:
            deliver.apply_async((event.decode(),), producer=producer)


if __name__ == "__main__":
    enqueue(sys.stdin.buffer.read().splitlines())

"""Peer: celery-batches, 500 events a request. `celery -A tools.bench.peers.celery_batched`."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from celery import Celery
from celery_batches import Batches  # type: ignore[import-not-found] # of the peers

from tools.bench.peers.rendering import PATH, body_of, client_of

BATCH: Final = 500
app: Final = Celery("peer", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A batch can only be filled with messages that were fetched before.
    worker_prefetch_multiplier=2 * BATCH,
    task_ignore_result=True,
)


@app.task(name="deliver", base=Batches, flush_every=BATCH, flush_interval=0.5)  # type: ignore[untyped-decorator]
def deliver(requests: list[Any]) -> None:
    """Render the events of a batch, and post one request."""
    events = [request.args[0].encode() for request in requests]
    client_of(os.getpid()).post(PATH, content=body_of(events)).raise_for_status()


def enqueue(events: list[bytes]) -> None:
    """Send a task for each event."""
    with app.producer_pool.acquire(block=True) as producer:
        for event in events:
            deliver.apply_async((event.decode(),), producer=producer)


if __name__ == "__main__":
    enqueue(sys.stdin.buffer.read().splitlines())

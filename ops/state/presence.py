"""The sign of life of Flower and of the metrics, by which `status` notices that they are gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final

from worker.contract.processes.companions import tell_seen
from worker.contract.redis.connection import connect
from worker.errors import RedisUnavailable

EVERY_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 2.0


@contextmanager
def seen_as(kind: str, url: str) -> Iterator[None]:
    """Report to Redis from a thread, until the context ends, that Flower or the metrics run.

    While Redis can't be reached, nothing is told.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_tell, args=(kind, url, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _tell(kind: str, url: str, ended: threading.Event) -> None:
    with closing(connect(url, timeout_seconds=_TIMEOUT_SECONDS)) as client:
        while True:
            with suppress(RedisUnavailable):
                tell_seen(client, kind)
            if ended.wait(EVERY_SECONDS):
                return

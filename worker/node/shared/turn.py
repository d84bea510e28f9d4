"""A node's turn for an errand: it ends when the node is told to stop, or when a drain waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

import redis

from worker.batch.sending.interrupt_watch import Stop
from worker.contract.redis.connection import connect, redis_errors, resolve_broker_url
from worker.contract.settings import Settings
from worker.contract.words import LIVE
from worker.errors import RedisUnavailable
from worker.node.shared.node import NodeMemory

_TIMEOUT_SECONDS: Final = 1.0


@contextmanager
def node_turn(settings: Settings, node: NodeMemory, stop: Stop) -> Iterator[NodeTurn]:
    """Yield the turn of one errand."""
    url = resolve_broker_url(settings.redis)
    with closing(connect(url, timeout_seconds=_TIMEOUT_SECONDS)) as broker:
        yield NodeTurn(node, stop, broker)


@dataclass(frozen=True, slots=True)
class NodeTurn:
    """See `worker.contract.celery.errands.Turn`."""

    node: NodeMemory
    stop: Stop
    broker: redis.Redis

    def is_over(self) -> bool:
        """Say whether the errand should end after what it is doing."""
        return self.stop.is_told or self.node.waiting.holds_any() or self._live_is_queued()

    def _live_is_queued(self) -> bool:
        try:
            with redis_errors():
                return bool(self.broker.llen(LIVE))
        except RedisUnavailable:
            return True

"""Reconnecting of a worker to a broker that went away."""

from __future__ import annotations

import time
from typing import Any, Final

import structlog
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

MOST_BETWEEN_TRIES_SECONDS: Final = 2
"""The longest pause between two tries: Redis' restart is noticed within 10 s."""
_REFUSED_SECONDS: Final = 1.0
LOG: Final = structlog.get_logger()


class PatientConsumer(Consumer):  # type: ignore[misc] # Celery is not typed
    """Tries to reach the broker without end, at least every two seconds.

    It does not use Celery's gossip between workers: what they share stands in Redis, and gossip
    costs a second at the start and a traceback in the log whenever the broker goes away.
    """

    def __init__(
        self, *arguments: Any, worker_options: dict[str, Any] | None = None, **options: Any
    ) -> None:
        alone = {"without_gossip": True, "without_mingle": True}
        super().__init__(*arguments, worker_options=(worker_options or {}) | alone, **options)

    def ensure_connected(self, conn: Any) -> Any:
        """Try to connect until that succeeds, or until the worker is told to stop."""
        told = False

        def tell(error: BaseException, _interval: float) -> None:
            nonlocal told
            if not told:
                LOG.warning("broker.unreachable", error=str(error))
            told = True

        conn.ensure_connection(
            tell,
            None,
            interval_start=1,
            interval_step=1,
            interval_max=MOST_BETWEEN_TRIES_SECONDS,
            callback=maybe_shutdown,
        )
        if told:
            LOG.info("broker.reachable")
        self.first_connection_attempt = False
        return conn

    def on_connection_error_before_connected(self, exc: BaseException) -> None:
        """Wait a moment before the next try, e.g. while a Redis that was replaced refuses commands.

        Celery tries again at once, and again and again.
        """
        LOG.warning("broker.refuses", error=str(exc))
        time.sleep(_REFUSED_SECONDS)

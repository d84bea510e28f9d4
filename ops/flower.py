"""Flower with what we need of it: a readable list of drains, workers at once, and one password.

It is put together here as `celery flower` does it, but for `flowerconfig.py`: that would be
executed from whatever folder is the current one.
"""

from __future__ import annotations

import atexit
import signal
import sys
import time
from functools import partial
from typing import Any, Final

from flower.api.workers import ListWorkers
from flower.app import Flower, rewrite_handler
from flower.command import apply_env_options, extract_settings, setup_logging
from flower.events import Events
from flower.urls import settings as page_settings
from flower.views.monitor import Metrics
from flower.views.workers import WorkersView
from tornado import web
from tornado.options import options

from worker.node.task import NO_FREE_SLOT

_ANY_HOST: Final = r".*"


def serve(app: Any, *, address: str, port: int, credentials: str) -> None:
    """Run Flower until it is told to stop.

    Args:
        app: A Celery app on the workers' broker.
        address: Where to listen.
        port: Where to listen.
        credentials: `user:password`; no page but the health check answers without.

    Raises:
        OSError: It can't listen there.
    """
    apply_env_options()
    options.basic_auth = [credentials]
    options.address, options.port = address, port
    options.run_parse_callbacks()
    extract_settings()
    setup_logging()
    watch = _Watch(options=options, capp=app, **page_settings)
    atexit.register(watch.stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    watch.start_http_server()
    try:
        watch.start()
    except (KeyboardInterrupt, SystemExit):
        return


class _Events(Events):  # type: ignore[misc] # Flower is not typed
    """What the workers tell, without the drains that found no free slot.

    There can be hundreds of them a second beside one that did something, and Flower keeps only so
    many tasks: they would push the others out.
    """

    def on_event(self, event: dict[str, Any]) -> None:
        """Take an event, in the thread that receives them."""
        self.io_loop.add_callback(partial(self._take, event))

    def _take(self, event: dict[str, Any]) -> None:
        self.state.event(event)
        if event["type"] == "task-succeeded" and event.get("result") == NO_FREE_SLOT:
            self.state.tasks.pop(event["uuid"], None)
            self.state.search_engine.remove(event["uuid"])

    def seen(self, worker: str) -> None:
        """Note that a worker lives which has told nothing yet."""
        now = time.time()
        heartbeat = {"type": "worker-heartbeat", "timestamp": now, "local_received": now}
        self.state.event({**heartbeat, "hostname": worker, "clock": 0, "freq": 2})


class _Watch(Flower):  # type: ignore[misc] # Flower is not typed
    """Flower's application, with three pages of our own."""

    def __init__(self, **given: Any) -> None:
        super().__init__(events=None, **given)
        self.events = _Events(
            self.capp,
            io_loop=self.io_loop,
            db=self.options.db,
            persistent=self.options.persistent,
            state_save_interval=self.options.state_save_interval,
            enable_events=self.options.enable_events,
            max_workers_in_memory=self.options.max_workers,
            max_tasks_in_memory=self.options.max_tasks,
        )
        pages = [(r"/(?:workers)?", _WorkersPage), (r"/api/workers", _WorkersApi)]
        pages += [(r"/metrics", _GuardedMetrics)]
        if self.options.url_prefix:
            pages = [rewrite_handler(page, self.options.url_prefix) for page in pages]
        self.add_handlers(_ANY_HOST, pages)

    async def know_workers(self) -> None:
        """Ask for the workers where none is known yet, instead of showing an empty list."""
        if not self.inspector.workers:
            await self.update_workers()
        for worker in self.inspector.workers:
            if worker not in self.events.state.workers:
                self.events.seen(worker)


class _WorkersPage(WorkersView):  # type: ignore[misc] # Flower is not typed
    @web.authenticated
    async def get(self) -> None:
        """Show the workers, also at the very first look."""
        await self.application.know_workers()
        await super().get()


class _WorkersApi(ListWorkers):  # type: ignore[misc] # Flower is not typed
    @web.authenticated
    async def get(self) -> None:
        """Return the workers, also at the very first look."""
        await self.application.know_workers()
        await super().get()


class _GuardedMetrics(Metrics):  # type: ignore[misc] # Flower is not typed
    @web.authenticated
    async def get(self) -> None:
        """Return the metrics to those who know the password; Flower's own asks for none."""
        await super().get()

"""The Celery app of a worker: `celery -A segrelay.worker.app worker`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.contract.settings import Settings, load_settings
from segrelay.worker.destinations.normalise import load_tables
from segrelay.worker.errors import SegrelayError
from segrelay.worker.node.celery_app import build_app, refuse
from segrelay.worker.node.loading import Upkeep, load
from segrelay.worker.node.runtime import Runtime, announce

COLLECT_AFTER: Final = (100_000, 20, 50)
"""Thresholds of the garbage collector during a drain: a batch has many objects and hardly a cycle.

A drain takes 0.92 of the time that it takes with Python's own numbers."""


@dataclass(slots=True)
class _Worker:
    """Loads the objects that all processes share, and builds those with which each one drains.

    The garbage collector never looks at these objects again, and so no process copies them.
    """

    settings: Settings
    loaded: Upkeep | None = None

    def load(self) -> Mapping[str, str]:
        """Load tables and templates; returns the triggers that can't be worked on, and why."""
        load_tables()  # before the copies that try each kind of trigger: each would load them
        self.loaded = load(self.settings)
        scripts.load_all()
        with suppress(Exception):  # each process tries it again, and says what is wrong
            asyncio.run(announce(self.settings, self.loaded))
        gc.collect()
        gc.freeze()
        return self.loaded.stopped

    def ready(self) -> Runtime:
        """Open the clients and templates with which this process drains."""
        runtime = Runtime(self.settings, self.loaded)
        runtime.connect()
        gc.set_threshold(*COLLECT_AFTER)
        gc.collect()
        gc.freeze()
        return runtime


def _configured_app() -> Any:
    try:
        worker = _Worker(load_settings())
        return build_app(worker.settings, worker.ready, load=worker.load)
    except SegrelayError as error:
        return refuse(error)


app = _configured_app()

"""The Celery app of a worker: `celery -A worker.app worker`."""

from __future__ import annotations

import gc
from typing import Any, Final

from worker.contract.settings import Settings, load_settings
from worker.errors import SegrelayError
from worker.node.edge import build_app
from worker.node.runtime import runtime_for
from worker.node.starting import refuse
from worker.node.task import Ready

COLLECT_AFTER: Final = (100_000, 20, 50)
"""Of the garbage collector while a drain runs: a batch makes many objects and hardly a cycle.

A drain takes 0.92 of the time that it takes with Python's own numbers."""


def _ready(settings: Settings) -> Ready:
    """Build what drains in this process; the garbage collector never looks at it again."""
    runtime = runtime_for(settings)
    gc.set_threshold(*COLLECT_AFTER)
    gc.collect()
    gc.freeze()
    routes = [route for routes in runtime.routes.values() for route in routes.values()]
    stopped = frozenset(route.trigger for route in routes if route.stopped)
    return Ready(runtime, stopped, lambda: runtime.renders.renderer.doubted)


def _configured_app() -> Any:
    try:
        return build_app(load_settings(), _ready)
    except SegrelayError as error:
        return refuse(error)


app = _configured_app()

"""The Celery app of a worker: `celery -A worker.app worker`."""

from __future__ import annotations

from typing import Any

from worker.contract.settings import Settings, load_settings
from worker.edge import build_app
from worker.errors import SegrelayError
from worker.runtime import runtime_for
from worker.starting import refuse
from worker.tasks import Ready


def _ready(settings: Settings) -> Ready:
    runtime = runtime_for(settings)
    routes = [route for routes in runtime.routes.values() for route in routes.values()]
    return Ready(runtime, frozenset(route.trigger for route in routes if route.stopped))


def _configured_app() -> Any:
    try:
        return build_app(load_settings(), _ready)
    except SegrelayError as error:
        return refuse(error)


app = _configured_app()

"""The Celery app of a worker: `celery -A worker.app worker`."""

from __future__ import annotations

from typing import Any

from worker.contract.settings import load_settings
from worker.edge import build_app
from worker.errors import SegrelayError
from worker.runtime import runtime_for
from worker.starting import refuse


def _configured_app() -> Any:
    try:
        return build_app(load_settings(), runtime_for)
    except SegrelayError as error:
        return refuse(error)


app = _configured_app()

"""Runs one of Celery's own commands in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from celery.bin.celery import celery


def run_celery(app: Any, arguments: Sequence[str]) -> NoReturn:
    """Run a command for an app, as `celery -A` would, and end with its exit code.

    `Celery.start` would not do: it loses the exit code.
    """
    celery.params[0].default = app
    celery.main(args=list(arguments), prog_name="segrelay", auto_envvar_prefix="CELERY")
    raise SystemExit(0)

"""Runs one of Celery's own commands in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from celery.bin.celery import celery
from celery.exceptions import ImproperlyConfigured

from worker.contract.words import BACKFILL, LIVE
from worker.errors import UsageWrong


def run_celery(app: Any, arguments: Sequence[str]) -> NoReturn:
    """Run a command for an app, as `celery -A` would, and end with its exit code.

    `Celery.start` would not do: it loses the exit code.

    Raises:
        UsageWrong: Celery can't start with these arguments.
    """
    celery.params[0].default = app
    try:
        celery.main(args=list(arguments), prog_name="segrelay", auto_envvar_prefix="CELERY")
    except ImproperlyConfigured as error:
        # What Celery finds only when it starts, e.g. a queue of another name.
        raise UsageWrong(
            f"Celery can't start with these options: {_first_sentence(str(error))}."
            f" The queues are {LIVE} and {BACKFILL}."
        ) from error
    raise SystemExit(0)


def _first_sentence(text: str) -> str:
    """Return the first sentence; the others are about settings that we do not have."""
    return " ".join(text.split()).partition(". ")[0].rstrip(".")

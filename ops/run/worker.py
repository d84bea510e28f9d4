"""`segrelay worker`: runs `celery -A worker.app worker` with the same options."""

from __future__ import annotations

import sys

import typer

from ops.interrupts import end_with_parent
from ops.run.celery_command import run_celery
from worker.contract.own_processes import own_module
from worker.errors import UsageWrong


def worker(ctx: typer.Context) -> None:
    """Run a worker with its processes; `segrelay worker -- --help` shows Celery's options."""
    if {"-D", "--detach"} & set(ctx.args):
        raise UsageWrong(
            "segrelay worker stays in the foreground: leave --detach to what supervises it,"
            " e.g. systemd or docker compose."
        )
    end_with_parent()
    from worker.app import app  # noqa: PLC0415 - reads the configuration, and needs Redis

    options = ["worker", "--loglevel=INFO", *ctx.args]
    # On SIGHUP Celery runs Python again, with what it sees here.
    sys.argv = own_module("ops.main", "worker", *ctx.args)[1:]
    run_celery(app, options)

"""`segrelay worker`: a thin front of `celery -A worker.app worker`; takes its options unchanged."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from ops.cli.celery_command import run_celery


def worker(ctx: typer.Context) -> None:
    """Run a worker with its processes; `segrelay worker -- --help` shows Celery's options."""
    from worker.app import app  # noqa: PLC0415 - reads the configuration, and needs Redis

    options = ["worker", "--loglevel=INFO", *ctx.args]
    # Celery starts itself again (--detach, SIGHUP) from the command line that it sees.
    sys.argv = [str(Path(sys.executable).with_name("celery")), "-A", "worker.app", *options]
    run_celery(app, options)

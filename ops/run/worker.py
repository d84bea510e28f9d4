"""`segrelay worker` and `segrelay flower`: run Celery's worker with its options, and watch it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from celery import signals
from celery.bin.celery import celery
from celery.exceptions import ImproperlyConfigured

from segrelay.ops.state.opened import load_for_redis
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.terminal.options import needs_extra
from segrelay.ops.terminal.serving import LogFormat, end_with_parent, use_log_format
from segrelay.worker import logs
from segrelay.worker.contract.celery import QUEUES
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.errors import UsageWrong


def run_celery(app: Any, arguments: Sequence[str]) -> NoReturn:
    """Run a command for an app, as `celery -A` would, and end with its exit code.

    `Celery.start` would not do: it loses the exit code.
    """
    celery.params[0].default = app
    try:
        celery.main(args=list(arguments), prog_name="segrelay", auto_envvar_prefix="CELERY")
    except ImproperlyConfigured as error:
        # What Celery finds only when it starts, e.g. a queue of another name.
        # Its other sentences are about settings that we do not have.
        first = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        queues = " and ".join(QUEUES)
        raise UsageWrong(
            f"Celery can't start with these options: {first}. The queues are {queues}."
        ) from error
    raise SystemExit(0)


def worker(ctx: typer.Context, *, log_format: LogFormat = None) -> None:
    """Run a worker with its processes; `segrelay worker -- --help` shows Celery's options."""
    use_log_format(log_format)
    if {"-D", "--detach"} & set(ctx.args):
        raise UsageWrong(
            "segrelay worker stays in the foreground: leave --detach to what supervises it,"
            " e.g. systemd or docker compose."
        )
    end_with_parent()
    load_for_redis(stays=True)  # Celery runs this anew on SIGHUP
    from segrelay.worker.app import app  # noqa: PLC0415 - reads the configuration, and needs Redis

    # Not before the processes of the pool are forked: they would inherit the thread's connections.
    signals.worker_ready.connect(lambda **_: start_announcer(app.segrelay.settings), weak=False)
    logs.configure(logging.INFO)
    logging.captureWarnings(capture=True)
    # Celery's banner is no line of a log.
    options = ["--quiet", "worker", "--loglevel=INFO", *ctx.args]
    # On SIGHUP Celery runs Python again, with what it sees here.
    sys.argv = own_module("segrelay.ops.main", "worker", *ctx.args)[1:]
    run_celery(app, options)


def flower(
    *,
    listen: Annotated[
        str, typer.Option(help="Listen here instead of at flower.listen.", metavar="HOST:PORT")
    ] = "",
    log_format: LogFormat = None,
) -> None:
    """Run Flower, to watch the workers. Some of its options are taken from FLOWER_… variables.

    It only shows, unless flower.actions is true.
    """
    use_log_format(log_format)
    end_with_parent()
    needs_extra("flower", "flower", "segrelay flower")
    import_module("segrelay.ops.run.flower").run_flower(listen)

"""`segrelay flower`: the real Flower, on the workers' broker, behind basic authentication."""

from __future__ import annotations

import errno
import logging
from typing import Annotated, Any, Final

import structlog
import typer
from celery import Celery

from ops.state.opened import load_for_redis
from ops.state.presence import seen_as
from ops.status.notices.announcer import start_announcer
from ops.terminal.interrupts import end_with_parent
from ops.terminal.serving import LogFormat, listening_at, use_log_format
from worker import logs
from worker.contract.celery.options import broker_options
from worker.contract.processes.companions import FLOWER
from worker.contract.redis.connection import resolve_url
from worker.contract.settings import FlowerSettings
from worker.errors import ConfigurationInvalid, PortTaken

LOG: Final = structlog.get_logger()


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
    settings = load_for_redis()
    section = settings.flower
    if section is None:
        raise ConfigurationInvalid(
            f'{settings.source.name}: [flower] is missing: add it, with password = "env:NAME".'
        )
    credentials = _credentials(section, settings.source.name)
    section = listening_at(section, listen)
    app = Celery("segrelay-flower")
    app.conf.update(broker_options(settings))
    with seen_as(FLOWER, resolve_url(settings.redis)):
        start_announcer(settings)
        _run(app, section, credentials)


def _credentials(section: FlowerSettings, file: str) -> str:
    password = section.password.reveal()
    if not password:
        raise ConfigurationInvalid(
            f"{file}: flower.password is empty, so anybody could see everything."
        )
    return f"{section.user}:{password}"


def _run(app: Any, section: FlowerSettings, credentials: str) -> None:
    """Run Flower in this process: no password stands on a command line."""
    from ops.flower.server import apply_variables, serve  # noqa: PLC0415 - takes a while

    logs.configure(logging.INFO)
    # It warns of each question that no worker answers; `segrelay status` says that none runs.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    for ignored in apply_variables():
        LOG.warning("flower.variable_ignored", message=ignored)
    try:
        serve(
            app,
            address=section.host,
            port=section.port,
            credentials=credentials,
            has_actions=section.actions,
        )
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortTaken(
            f"Something listens on {section.listen} already: end it, or set flower.listen."
        ) from error

"""`segrelay metrics`: serves metrics for Prometheus."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Annotated, Final

import structlog
import typer

from ops.metrics.app import PATH, build_metrics_app
from ops.metrics.page import MetricsPage
from ops.state.presence import seen_as
from ops.status.notices.announcer import start_announcer
from ops.terminal.interrupts import end_with_parent
from ops.terminal.options import LogFormat, listening_at, use_log_format
from producer.webhook.server import serve
from worker import logs
from worker.contract.processes.companions import METRICS
from worker.contract.redis.connection import connect, resolve_url
from worker.contract.settings import MetricsSettings, load_settings
from worker.contract.settings.values.urls import is_loopback
from worker.errors import ConfigurationInvalid

LOG: Final = structlog.get_logger()
_TIMEOUT_SECONDS: Final = 5.0


def metrics(
    *,
    listen: Annotated[
        str, typer.Option(help="Listen here instead of at metrics.listen.", metavar="HOST:PORT")
    ] = "",
    log_format: LogFormat = None,
) -> None:
    """Serve metrics for Prometheus at /metrics until Ctrl-C.

    They are read from Redis whenever they are asked for, so one process is enough. While Redis
    can't be asked, segrelay_up is 0.
    """
    end_with_parent()
    use_log_format(log_format)
    settings = load_settings()
    section = listening_at(settings.metrics or MetricsSettings(), listen)
    token = _token(section, settings.source.name)
    logs.configure(logging.INFO)
    url = resolve_url(settings.redis)
    with closing(connect(url, timeout_seconds=_TIMEOUT_SECONDS)) as client, seen_as(METRICS, url):
        start_announcer(settings)
        serve(
            build_metrics_app(MetricsPage(client, settings).text, token),
            section.host,
            section.port,
            on_ready=lambda shown: LOG.info("metrics.ready", message=f"metrics at {shown}{PATH}"),
            hint="change metrics.listen",
        )


def _token(section: MetricsSettings, file: str) -> str:
    if section.token is not None:
        return section.token.reveal()
    if is_loopback(section.host):
        return ""
    raise ConfigurationInvalid(
        f"{file}: metrics.token is not set, so whoever reaches {section.listen} could read the"
        ' metrics. Add [metrics] token = "env:SEGRELAY_METRICS_TOKEN".'
    )

"""`segrelay metrics`: serves metrics for Prometheus."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Final

import structlog
import typer
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ops.metrics.page import MetricsPage
from ops.state.opened import load_for_redis
from ops.state.presence import seen_as
from ops.status.notices.announcer import start_announcer
from ops.terminal.interrupts import end_with_parent
from ops.terminal.serving import LogFormat, listening_at, use_log_format
from producer.webhook.server import serve
from worker import logs
from worker.contract.processes.companions import METRICS
from worker.contract.redis.connection import connect, resolve_url
from worker.contract.settings import MetricsSettings
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
    settings = load_for_redis()
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


PATH: Final = "/metrics"
_SCHEME: Final = "Bearer "


def metrics_route(text: Callable[[], bytes], token: str) -> Route:
    """Return the route at which the metrics are read.

    Args:
        text: Returns the page. Called from a thread.
        token: That a reader has to send; "" = anybody may read.
    """

    async def answer(request: Request) -> Response:
        if token and not _knows(request, token):
            return PlainTextResponse(
                "The token is missing or wrong: send metrics.token as `Authorization: Bearer`.\n",
                401,
                {"www-authenticate": "Bearer"},
            )
        page = await asyncio.to_thread(text)
        return Response(page, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Route(PATH, answer, methods=["GET"])


def build_metrics_app(text: Callable[[], bytes], token: str) -> Starlette:
    """Return the application of `segrelay metrics`."""

    async def is_alive(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    return Starlette(routes=[metrics_route(text, token), Route("/healthz", is_alive)])


def _knows(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    if not given.startswith(_SCHEME):
        return False
    return hmac.compare_digest(given.removeprefix(_SCHEME).strip().encode(), token.encode())

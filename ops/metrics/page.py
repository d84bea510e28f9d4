"""`segrelay metrics`: the page for Prometheus, read from Redis at each scrape, and its server.

The numbers equal the status at that moment.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Final

import structlog
import typer
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, Metric, generate_latest
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from segrelay.ops.dead_letters.reading import count_causes
from segrelay.ops.metrics.families import OF_A_LOST_REDIS, metrics_of, rows_of, rows_of_problems
from segrelay.ops.state.opened import load_for_redis, seen_as
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.status.health import UNREACHABLE, problems_of
from segrelay.ops.status.problems import ILL, HealthProblem
from segrelay.ops.status.standing import WatchedFile, read_newest
from segrelay.ops.terminal.interrupts import end_with_parent
from segrelay.ops.terminal.serving import LogFormat, listening_at, use_log_format
from segrelay.producer.webhook.server import serve
from segrelay.worker import logs
from segrelay.worker.contract.processes import METRICS
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import MetricsSettings
from segrelay.worker.contract.settings.urls import is_loopback
from segrelay.worker.errors import ConfigurationInvalid, RedisUnavailable


@dataclass(slots=True)
class MetricsPage(Collector):
    """The page of metrics, made anew from Redis at each scrape.

    Args:
        client: Of its own, with short timeouts.
    """

    client: Redis
    settings: Settings
    _file: WatchedFile = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Watch the file of the configuration."""
        self._file = WatchedFile(self.settings)

    def text(self) -> bytes:
        """Return the page; if Redis can't be reached, the page says only that."""
        with self._lock:
            return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        """Read the families of the page; see `text`."""
        try:
            partitions = all_partitions(self.client, self._file.settings)
            standing = read_newest(self.client, self._file, partitions)
            causes = count_causes(self.client, partitions)
        except RedisUnavailable as error:
            found = HealthProblem(UNREACHABLE, ILL, "", error.message, "segrelay redis status")
            return metrics_of([("up", (), 0), *rows_of_problems([found])], OF_A_LOST_REDIS)
        problems = rows_of_problems(problems_of(standing))
        return metrics_of(chain(rows_of(standing, causes), problems))


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
        start_announcer(settings, only_watches=True)
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
_SCHEME: Final = "bearer"


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
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != _SCHEME:
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())

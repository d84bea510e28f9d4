"""`segrelay metrics`: the page for Prometheus, read from Redis at each scrape, and its server.

The numbers equal the status at that moment.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated, Final

import structlog
import typer
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from segrelay.ops.dead_letters.reading import Cause, count_causes
from segrelay.ops.metrics import deliveries
from segrelay.ops.metrics.families import RowFamily, gauge, number, text_of
from segrelay.ops.state.opened import load_for_redis, seen_as
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.status.health import UNREACHABLE, problems_of
from segrelay.ops.status.problems import ILL, HealthProblem
from segrelay.ops.status.standing import Standing, WatchedFile, read_newest
from segrelay.ops.terminal.interrupts import end_with_parent
from segrelay.ops.terminal.serving import LogFormat, listening_at, use_log_format
from segrelay.producer.webhook.server import serve
from segrelay.worker import logs
from segrelay.worker.contract.processes import METRICS
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import MetricsSettings, Settings
from segrelay.worker.contract.settings.urls import is_loopback
from segrelay.worker.errors import ConfigurationInvalid, RedisUnavailable


def up(*, is_up: bool) -> Metric:
    """Return the metric that is 1 if Redis could be asked."""
    return number("segrelay_up", "1 if Redis could be asked.", float(is_up))


def count_problems(found: Sequence[HealthProblem]) -> RowFamily:
    """Return the number of problems of each name and severity."""
    counts = Counter((one.name, one.severity) for one in found)
    return gauge(
        "segrelay_problems",
        "What is wrong: the subjects of each problem that `segrelay status` names.",
        ("name", "severity"),
        sorted(counts.items()),
    )


def workers(standing: Standing) -> Iterator[Metric]:
    """Yield the numbers of workers, and of records for response streams and files that wait."""
    yield number("segrelay_workers", "Workers that were seen lately.", len(standing.workers))
    yield number(
        "segrelay_responses_waiting",
        "Records that wait for response streams.",
        standing.responses.waiting,
    )
    found = standing.retention.document()
    for kind, scope in (("letters", "dead_letters"), ("records", "quarantined_records")):
        what = scope.replace("_", " ")
        yield number(
            f"segrelay_{kind}_expiring",
            f"{what.capitalize()} that will be dropped soon because of their age.",
            found[scope]["expiring"],
        )
        yield number(
            f"segrelay_{kind}_expired",
            f"{what.capitalize()} that were dropped because of their age.",
            found[scope]["dropped"],
        )


def redis(standing: Standing) -> Iterator[Metric]:
    """Yield the memory that Redis uses, and whether it is durable."""
    found = standing.redis
    numbers = {
        "memory_used_bytes": ("Memory that Redis uses.", found.used),
        "memory_max_bytes": ("Redis' maxmemory; 0 = it has none.", found.most),
        "keys": (
            "Keys in Redis; nearly all are ledgers, one for each profile of a destination.",
            found.keys,
        ),
        "full": ("1 if Redis takes no more events.", bool(found.full)),
        "durable": ("1 if Redis is as durable as promised.", not found.weak),
        "disk_writable": ("1 if Redis can write to its disk.", not found.failing),
        "emptied": ("How often Redis came back empty, and nobody has acknowledged it.",
                    len(found.losses)),
    }  # fmt: skip
    for name, (scope, value) in numbers.items():
        yield number(f"segrelay_redis_{name}", scope, float(value))


def families_of(standing: Standing, causes: list[Cause]) -> Iterator[Metric]:
    """Yield all metrics of the page, with their numbers."""
    yield up(is_up=True)
    yield count_problems(problems_of(standing))
    for family in (
        deliveries.outcomes,
        deliveries.waiting,
        deliveries.times,
        deliveries.left_out,
        deliveries.answers,
        deliveries.rates,
        deliveries.states,
        deliveries.receivers,
        deliveries.jobs,
        deliveries.syncs,
        workers,
        redis,
    ):
        yield from family(standing)
    yield from deliveries.dead_letters(standing, causes)


@dataclass(slots=True)
class MetricsPage:
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
            try:
                families = self._read()
            except RedisUnavailable as error:
                found = HealthProblem(UNREACHABLE, ILL, "", error.message, "segrelay redis status")
                families = [up(is_up=False), count_problems([found])]
        return text_of(families)

    def _read(self) -> Iterable[Metric]:
        partitions = all_partitions(self.client, self._file.settings)
        standing = read_newest(self.client, self._file, partitions)
        return families_of(standing, count_causes(self.client, partitions))


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

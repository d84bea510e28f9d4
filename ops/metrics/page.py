"""`segrelay metrics`: the page for Prometheus, read from Redis at each scrape, and its server.

The numbers equal the status at that moment.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Any, Final

import structlog
import typer
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from segrelay.ops.dead_letters.reading import Cause, count_causes
from segrelay.ops.state.opened import load_for_redis
from segrelay.ops.state.partitions import KINDS, REASONED, all_partitions
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.status.health import UNREACHABLE, problems_of
from segrelay.ops.status.problems import ILL, HealthProblem, pace_between
from segrelay.ops.status.standing import Standing, WatchedFile, read_newest
from segrelay.ops.terminal.serving import LogFormat, end_with_parent, listening_at, use_log_format
from segrelay.producer.webhook.server import serve
from segrelay.worker import logs
from segrelay.worker.contract.outcomes import Histogram
from segrelay.worker.contract.processes import sample_before
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import MetricsSettings
from segrelay.worker.contract.settings.urls import is_loopback
from segrelay.worker.errors import ConfigurationInvalid, RedisUnavailable

GAUGES: Final[Mapping[str, str]] = {
    "up": "1 if Redis could be asked.",
    "problems": "What is wrong: the subjects of each problem that `segrelay status` names.",
    "deliveries_waiting": "Deliveries that wait.",
    "oldest_waiting_seconds": "The time for which the oldest delivery has waited.",
    "deliveries_orphaned": "Deliveries that wait where no worker delivers them.",
    "letters": "Dead letters that lie there.",
    "letters_by_cause": "Dead letters by cause, as `dlq causes` shows them.",
    "quarantine_records": "Events that could not be placed.",
    "gate_rate_per_minute": "Requests that may be sent in a minute now; 0 = none was ever sent.",
    "gate_limit_per_minute": "Requests that may be sent in a minute, as configured.",
    "gate_used_ratio": "The requests of the last minute as a share of the rate in force.",
    "gate_factor": "What slow-downs have left of the rate, 0 to 1.",
    "destination_state": "1 for the state in which a destination is.",
    "receiver_event_timestamp_seconds": "When a receiver last stored events.",
    "receiver_lag_seconds": "How late the last two timers of a receiver were, as of a starved one.",
    "jobs": "Backfills by state.",
    "job_deliveries": "Deliveries of a backfill that has not ended, by what became of them.",
    "sync_failures": "Steps of a sync in a row that came to nothing.",
    "sync_waits_for_confirm": "1 while a sync waits for a person.",
    "sync_ended_timestamp_seconds": "When the last run of a sync ended.",
    "workers": "Workers that were seen lately.",
    "responses_waiting": "Records that wait for response streams.",
    "redis_memory_used_bytes": "Memory that Redis uses.",
    "redis_memory_max_bytes": "Redis' maxmemory; 0 = it has none.",
    "redis_keys": "Keys in Redis; nearly all are ledgers, one for each profile of a destination.",
    "redis_full": "1 if Redis takes no more events.",
    "redis_durable": "1 if Redis is as durable as promised.",
    "redis_disk_writable": "1 if Redis can write to its disk.",
}
"""The numbers that rise and fall, and what each says."""
COUNTERS: Final[Mapping[str, str]] = {
    "deliveries_accepted": "Deliveries that were accepted: an event for a trigger each.",
    "deliveries_delivered": "Deliveries that the destination has taken.",
    "deliveries_discarded": "Deliveries taken back by a person, or dead letters of a certain age.",
    "deliveries_skipped": "Deliveries that needed no request, by reason.",
    "deliveries_dead": "Deliveries that became dead letters, by reason.",
    "deliveries_resent": "Deliveries sent again because an earlier request got no sure answer.",
    "dropped_fields": "Fields left out of user objects: the destination would refuse them.",
    "requests": "Requests by the status of the answer, or by why there was none.",
    "request_users": "User objects in all requests.",
    "requests_unanswered": "Requests that may have taken effect without a sure answer.",
    "receiver_requests": "Requests that receivers answered, by status.",
}
"""The numbers that only rise; `_total` is added to the name of each."""
HISTOGRAMS: Final[Mapping[str, str]] = {
    "delivery_seconds": "The time of a delivery since its event occurred or was accepted.",
    "request_seconds": "The time of a request until its answer.",
}
"""The times by buckets."""
_KINDS: Final = (
    (GaugeMetricFamily, GAUGES),
    (CounterMetricFamily, COUNTERS),
    (HistogramMetricFamily, HISTOGRAMS),
)
OF_A_LOST_REDIS: Final = ("up", "problems")
"""The families that are told while Redis can't be asked."""

OTHER: Final = "other"
"""The value of a label for the sum of everything beyond its bound."""
MOST_CAUSES: Final = 20
MOST_FIELDS: Final = 50
MOST_JOBS: Final = 50
STATES: Final = ("ok", "slowed", "broken", "paused", "orphaned")
_USED_MS: Final = 60_000
MetricRow = tuple[str, Mapping[str, str], float | Histogram]
"""The name of a family, its labels with their values, and the number."""


def metrics_of(rows: Iterable[MetricRow], names: Sequence[str] = ()) -> list[Metric]:
    """Return families with their rows: all, also those without any row, or only the named ones."""
    by_name: defaultdict[str, list[MetricRow]] = defaultdict(list)
    for row in rows:
        by_name[row[0]].append(row)
    families: list[Any] = []
    for make, table in _KINDS:
        for name in [one for one in table if not names or one in names]:
            own = by_name[name]
            labels = list(own[0][1]) if own else []
            family: Any = make(f"segrelay_{name}", table[name], labels=labels)
            families.append(family)
            for _, values, number in own:
                if isinstance(number, Histogram):
                    buckets = list(number.cumulative().items())
                    family.add_metric(list(values.values()), buckets, number.sum_seconds)
                else:
                    family.add_metric(list(values.values()), number)
    return families


def rows_of_problems(problems: Iterable[HealthProblem]) -> Iterator[MetricRow]:
    """Yield the number of problems of each name and severity."""
    counts = Counter((one.name, one.severity) for one in problems)
    for (name, severity), count in sorted(counts.items()):
        yield "problems", {"name": name, "severity": severity}, count


def rows_of(standing: Standing, causes: Sequence[Cause]) -> Iterator[MetricRow]:
    """Yield the rows of all families but the problems."""
    yield "up", {}, 1
    yield from _rows_of_triggers(standing)
    yield from _rows_of_destinations(standing)
    yield from _rows_of_work(standing)
    yield from _rows_of_what_is_kept(standing, causes)
    yield from _rows_of_processes(standing)


def _rows_of_triggers(standing: Standing) -> Iterator[MetricRow]:
    for name, one in standing.triggers.items():
        own = {"destination": one.destination, "trigger": name}
        for lane, counts in one.by_lane.items():
            for kind in ("accepted", "delivered", "discarded"):
                yield f"deliveries_{kind}", own | {"lane": lane}, counts.of(kind)
            for kind in REASONED:
                for reason, count in counts.by_reason(kind).items():
                    yield f"deliveries_{kind}", own | {"lane": lane, "reason": reason}, count
        if one.counts.resent:
            yield "deliveries_resent", own, one.counts.resent
        for lane, wait in one.waits.items():
            waited_ms = max(0, standing.now_ms - wait.oldest_ms)
            yield "deliveries_waiting", own | {"lane": lane}, wait.deliveries
            yield "oldest_waiting_seconds", own | {"lane": lane}, waited_ms / 1_000
    yield "deliveries_orphaned", {}, standing.totals.orphans.total()


def _rows_of_destinations(standing: Standing) -> Iterator[MetricRow]:
    for name, one in standing.destinations.items():
        requests, own = one.requests, {"destination": name}
        for status, count in requests.by_status.items():
            yield "requests", own | {"status": status}, count
        yield "request_users", own, requests.users
        yield "request_seconds", own, requests.times
        for lane, by_since in requests.delivery_times.items():
            for since, times in by_since.items():
                yield "delivery_seconds", own | {"lane": lane, "since": since}, times
        yield "gate_rate_per_minute", own, one.rate
        if one.rate:
            yield "gate_used_ratio", own, _per_minute(standing, name) / one.rate
        yield "gate_factor", own, one.factor
        for state in STATES:
            yield "destination_state", own | {"state": state}, one.condition.state == state
        yield "letters", own, one.dead_letters
    for name, configured in standing.settings.destinations.items():
        yield "gate_limit_per_minute", {"destination": name}, configured.rate_per_minute
    yield "requests_unanswered", {}, standing.counts.unanswered


def _per_minute(standing: Standing, destination: str) -> float:
    if not standing.samples:
        return 0.0
    newest = standing.samples[0]
    before = sample_before(standing.samples, newest.at_ms - _USED_MS) or newest
    return pace_between(before, newest, destination)[1]


def _rows_of_work(standing: Standing) -> Iterator[MetricRow]:
    """Yield the rows of backfills and syncs."""
    jobs = standing.jobs
    states = Counter(one.condition.state for one in jobs.values())
    for state, count in sorted(states.items()):
        yield "jobs", {"state": state}, count
    going = [name for name, one in jobs.items() if not one.condition.has_ended]
    for name in going[:MOST_JOBS]:
        for kind in KINDS:
            yield "job_deliveries", {"job": name, "kind": kind}, jobs[name].counts.of(kind)
    for name, run in standing.syncs.items():
        own = {"sync": name}
        yield "sync_failures", own, run.failures
        yield "sync_waits_for_confirm", own, bool(run.asks)
        if run.ended_ms:
            yield "sync_ended_timestamp_seconds", own, run.ended_ms / 1_000


def _rows_of_what_is_kept(standing: Standing, causes: Sequence[Cause]) -> Iterator[MetricRow]:
    """Yield the rows of dead letters, quarantined records, and fields that shaping left out."""
    labels = ("cause", "reason", "trigger")
    for one in causes[:MOST_CAUSES]:
        yield "letters_by_cause", {name: getattr(one, name) for name in labels}, one.count
    if rest := sum(one.count for one in causes[MOST_CAUSES:]):
        yield "letters_by_cause", dict.fromkeys(labels, OTHER), rest
    yield "quarantine_records", {}, standing.quarantined
    fields = sorted(standing.totals.dropped_fields.items(), key=lambda one: (-one[1], one[0]))
    rest = sum(count for _, count in fields[MOST_FIELDS:])
    for name, count in (*fields[:MOST_FIELDS], *([(OTHER, rest)] if rest else [])):
        yield "dropped_fields", {"field": name}, count


def _rows_of_processes(standing: Standing) -> Iterator[MetricRow]:
    """Yield the rows of receivers, workers and Redis."""
    receivers, redis = standing.receivers, standing.redis
    for status, count in sorted(receivers.ever.items()):
        yield "receiver_requests", {"status": str(status)}, count
    if receivers.event_ms:
        yield "receiver_event_timestamp_seconds", {}, receivers.event_ms / 1_000
    lags_ms = (one.lag_ms for one in receivers.running.values())
    yield "receiver_lag_seconds", {}, max(lags_ms, default=0) / 1_000
    yield "workers", {}, len(standing.workers)
    yield "responses_waiting", {}, standing.responses.waiting
    yield "redis_memory_used_bytes", {}, redis.used
    yield "redis_memory_max_bytes", {}, redis.most
    yield "redis_keys", {}, redis.keys
    yield "redis_full", {}, bool(redis.full)
    yield "redis_durable", {}, not redis.weak
    yield "redis_disk_writable", {}, not redis.failing


@dataclass(slots=True)
class MetricsPage(Collector):
    """The page of metrics, made anew from Redis at each scrape.

    Args:
        client: The client of the page alone, with short timeouts.
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
            return metrics_of([("up", {}, 0), *rows_of_problems([found])], OF_A_LOST_REDIS)
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
    with closing(connect(url, timeout_seconds=_TIMEOUT_SECONDS)) as client:
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


def build_metrics_app(text: Callable[[], bytes], token: str) -> Starlette:
    """Return the application of `segrelay metrics`.

    Args:
        text: A function that returns the page. Called from a thread.
        token: The token that a reader has to send; "" = anybody may read.
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

    async def is_alive(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    return Starlette(routes=[Route(PATH, answer), Route("/healthz", is_alive)])


def _knows(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    is_same = hmac.compare_digest(given.strip().encode(), token.encode())
    return scheme.lower() == "bearer" and is_same

"""`segrelay serve`: the receiver of Lytics' webhooks."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

import httpx
import orjson
import structlog
import typer
from starlette.routing import Route

from segrelay.ops.metrics.page import MetricsPage, metrics_route
from segrelay.ops.state.opened import load_for_redis
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.status.health import ProblemNames
from segrelay.ops.terminal.console import print_json, say
from segrelay.ops.terminal.serving import LogFormat, listening_at, use_log_format
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import BackgroundWaker
from segrelay.producer.webhook.app import (
    CHECK_HEADER,
    SECRET_HEADER,
    Inspector,
    Receiver,
    build_app,
)
from segrelay.producer.webhook.intake import AnswerRecord, Intake, draft_bodies
from segrelay.producer.webhook.server import serve as serve_app
from segrelay.worker import logs
from segrelay.worker.contract.connections import why_no_answer
from segrelay.worker.contract.processes import keep_requests, report_receiver
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url, wait_ready
from segrelay.worker.contract.redis.instance import InstanceWatch
from segrelay.worker.contract.settings import Settings, load_settings
from segrelay.worker.contract.settings.sections import WebhookSettings
from segrelay.worker.errors import ConfigurationInvalid, OperationsMustAct

LOG: Final = structlog.get_logger()
_HINT: Final = """\
[producer.webhook]
listen = "127.0.0.1:8080"
secret = "env:SEGRELAY_WEBHOOK_SECRET"
"""


def serve(
    *,
    check: Annotated[
        bool,
        typer.Option("--check", help="Post a sample to the running receiver, and store nothing."),
    ] = False,
    url: Annotated[
        str,
        typer.Option(help="With --check: where to post it, if not to producer.webhook.public_url."),
    ] = "",
    listen: Annotated[
        str,
        typer.Option(
            help="Listen here instead of at producer.webhook.listen.", metavar="HOST:PORT"
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="With --check: print one JSON document.")
    ] = False,
    log_format: LogFormat = None,
) -> None:
    """Receive Lytics' webhooks until Ctrl-C, or check that they arrive."""
    use_log_format(log_format)
    settings = load_settings() if check else load_for_redis()
    webhook = settings.producer.webhook
    if webhook is None:
        raise ConfigurationInvalid(
            f"{settings.source.name} has no [producer.webhook]; add for example\n{_HINT}"
        )
    webhook = listening_at(webhook, listen)
    if check:
        _check(webhook, url or webhook.public_url or _own_url(webhook), as_json=as_json)
    else:
        _serve(settings, webhook)


def _serve(settings: Settings, webhook: WebhookSettings) -> None:
    logs.configure(logging.INFO)
    address = resolve_url(settings.redis)
    for warning in wait_ready(address, replicas=settings.redis.replicas):
        LOG.warning("redis.weak", message=warning)
    with ExitStack() as ending:
        client = ending.enter_context(closing(connect(address, replicas=settings.redis.replicas)))
        quick = [
            ending.enter_context(closing(connect(address, timeout_seconds=2.0))) for _ in range(4)
        ]
        claim(client, settings)
        start_announcer(settings)
        # Its wake-ups are sent by a thread, never by a request.
        publisher = Publisher(client, settings, waker=BackgroundWaker(settings))
        receiver = _receiver(settings, webhook, publisher, quick[:3])
        serve_app(
            build_app(receiver, webhook.path, _metrics(settings, quick[3])),
            webhook.host,
            webhook.port,
            on_ready=lambda url: LOG.info(
                "receiver.ready", message=f"receiving at {url}{webhook.path}"
            ),
        )


def _receiver(
    settings: Settings, webhook: WebhookSettings, publisher: Publisher, quick: Sequence[Redis]
) -> Receiver:
    """Return the receiver; its parts have connections of their own, with short timeouts."""
    looking, judging, telling = quick
    inspector = Inspector(looking, settings)
    return Receiver(
        secrets=[secret.reveal().encode() for secret in webhook.secrets],
        intake=Intake(partial(draft_bodies, publisher)),
        ready=inspector.why_not_ready,
        inspect=inspector.inspect,
        count_too_large=inspector.count_too_large,
        max_bytes=webhook.max_bytes,
        problems=ProblemNames(judging, settings).read,
        record=AnswerRecord(
            partial(
                report_receiver,
                telling,
                max_bytes=webhook.max_bytes,
                config=settings.fingerprint,
                begun_at=time.monotonic(),
            ),
            look=InstanceWatch(telling, settings).look,
            keep=partial(keep_requests, telling),
        ),
    )


def _metrics(settings: Settings, client: Redis) -> list[Route]:
    """Return the route of the metrics, if there is a token for them."""
    token = settings.metrics.token if settings.metrics else None
    if token is None:
        return []
    if not token.is_set:
        message = f"No metrics are served here: metrics.token is not set ({token.origin})."
        LOG.warning("metrics.off", message=message)
        return []
    return [metrics_route(MetricsPage(client, settings).text, token.reveal())]


def _own_url(webhook: WebhookSettings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(webhook.host, webhook.host)  # noqa: S104 - named, not bound
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{webhook.port}{webhook.path}"


def _check(webhook: WebhookSettings, url: str, *, as_json: bool) -> None:
    """Post a sample to the receiver and show its outcome; nothing is stored."""
    headers = {SECRET_HEADER: webhook.secrets[0].reveal(), CHECK_HEADER: "1"}
    try:
        answer = httpx.post(url, content=_sample(), headers=headers, timeout=10.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OperationsMustAct(
            f"{url} does not answer ({why_no_answer(error)}): is `segrelay serve` running there, "
            "and does the proxy in front of it pass this path on?"
        ) from error
    found = _document(answer)
    is_right = answer.status_code == httpx.codes.OK and found.get("check") is True
    if as_json:
        print_json({"url": url, "status": answer.status_code, "ok": is_right, "answer": found})
    elif is_right:
        say(f"{url} receives: the sample was authenticated and read, and was not stored.")
    if not is_right:
        raise OperationsMustAct(_what_is_wrong(url, answer, found))


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _what_is_wrong(url: str, answer: httpx.Response, found: dict[str, Any]) -> str:
    said = f": {found['error']}" if isinstance(found.get("error"), str) else ""
    if not found:
        return (
            f"{url} is answered {answer.status_code} by something that is not segrelay's receiver; "
            "look at the proxy in front of it."
        )
    return f"{url} is answered {answer.status_code}{said}"


def _sample() -> bytes:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "000Z")
    entry = {"id": "0" * 32, "slug": "segrelay-check", "event": "enter", "enter": now}
    data = {"email": "check@example.com", "segment_events": [entry]}
    return orjson.dumps({"id": "1", "data": data, "meta": {"object": "user", "timestamp": now}})

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

from segrelay.ops.state.opened import load_for_redis
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.status.health import read_ill_names
from segrelay.ops.status.standing import Shared
from segrelay.ops.terminal.console import json_or_text
from segrelay.ops.terminal.frame import Result
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
from segrelay.producer.webhook.intake import AnswerRecord, Intake, store_bodies
from segrelay.producer.webhook.server import serve as serve_app
from segrelay.worker import logs
from segrelay.worker.contract.connections import why_no_answer
from segrelay.worker.contract.processes import keep_requests, report_receiver
from segrelay.worker.contract.redis.claim import InstanceWatch, claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url, wait_ready
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
    log_format: LogFormat = None,
) -> Result:
    """Receive Lytics' webhooks until Ctrl-C, or check that they arrive.

    --json is about --check, whose exit code is 1 if they do not.
    """
    use_log_format(log_format)
    settings = load_settings() if check else load_for_redis()
    webhook = settings.producer.webhook
    if webhook is None:
        raise ConfigurationInvalid(
            f"{settings.source.name} has no [producer.webhook]; add for example\n{_HINT}"
        )
    webhook = listening_at(webhook, listen)
    if check:
        return _check(webhook, url or webhook.public_url or _own_url(webhook))
    _serve(settings, webhook)
    raise typer.Exit


def _serve(settings: Settings, webhook: WebhookSettings) -> None:
    logs.configure(logging.INFO)
    address = resolve_url(settings.redis)
    for warning in wait_ready(address, replicas=settings.redis.replicas):
        LOG.warning("redis.weak", message=warning)
    with ExitStack() as ending:
        client = ending.enter_context(closing(connect(address, replicas=settings.redis.replicas)))
        quick = [
            ending.enter_context(closing(connect(address, timeout_seconds=2.0))) for _ in range(3)
        ]
        claim(client, settings)
        start_announcer(settings)
        receiver = _receiver(
            settings,
            webhook,
            Publisher(client, settings, waker=BackgroundWaker(settings)),
            quick,
        )
        serve_app(
            build_app(receiver, webhook.path),
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
        intake=Intake(partial(store_bodies, publisher)),
        ready=inspector.why_not_ready,
        inspect=inspector.inspect,
        max_bytes=webhook.max_bytes,
        problems=Shared(partial(read_ill_names, judging, settings), 5.0),
        record=AnswerRecord(
            partial(
                report_receiver,
                telling,
                config=settings.fingerprint,
                begun_at=time.monotonic(),
            ),
            look=InstanceWatch(telling, settings).look,
            keep=partial(keep_requests, telling),
        ),
    )


def _own_url(webhook: WebhookSettings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(webhook.host, webhook.host)  # noqa: S104 - named, not bound
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{webhook.port}{webhook.path}"


def _check(webhook: WebhookSettings, url: str) -> Result:
    """Post a sample to the receiver, and return its outcome; nothing is stored."""
    headers = {SECRET_HEADER: webhook.secrets[0].reveal(), CHECK_HEADER: "1"}
    try:
        answer = httpx.post(url, content=_sample(), headers=headers, timeout=10.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OperationsMustAct(
            f"{url} does not answer ({why_no_answer(error)}): is `segrelay serve` running there, "
            "and does the proxy in front of it pass this path on?"
        ) from error
    value = json_or_text(answer.text)
    found: dict[str, Any] = value if isinstance(value, dict) else {}
    is_right = answer.status_code == httpx.codes.OK and found.get("check") is True
    document = {"url": url, "status": answer.status_code, "ok": is_right, "answer": found}
    if is_right:
        told = f"{url} receives: the sample was authenticated and read, and was not stored."
        return Result(document, told)
    by = "" if found else " by something that is not segrelay's receiver; look at its proxy"
    said = f": {found['error']}" if isinstance(found.get("error"), str) else by
    return Result(document, notes=[f"{url} is answered {answer.status_code}{said}."], exit_code=1)


def _sample() -> bytes:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "000Z")
    entry = {"id": "0" * 32, "slug": "segrelay-check", "event": "enter", "enter": now}
    data = {"email": "check@example.com", "segment_events": [entry]}
    return orjson.dumps({"id": "1", "data": data, "meta": {"object": "user", "timestamp": now}})

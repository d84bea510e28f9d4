"""The receiver of webhooks as a Starlette application, with the answers to checks and probes.

Lytics tries again whatever is not answered 200, except 400, 404 and 413, whose events it drops for
good. So everything that is authenticated and stored is answered 200, also what is no JSON, and no
answer of ours is a 400.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import CapacityMeter, Published
from segrelay.producer.webhook.intake import (
    PORTION,
    SMALL_BYTES,
    TOO_LARGE,
    AnswerRecord,
    Body,
    BodyMemory,
    HeldMemory,
    Intake,
    RequestRefused,
    body_too_large,
    unpack,
)
from segrelay.worker.contract.processes import (
    WebhookRequest,
    new_request_id,
)
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import RedisMismatch, RedisUnavailable, SegrelayError
from segrelay.worker.logs import log_often

BODY_SECONDS: Final = 60.0
"""The seconds in which a body has to arrive; a slower sender is asked to send it again."""
RETRY_AFTER_SECONDS: Final = 5
SECRET_HEADER: Final = "x-segrelay-secret"  # noqa: S105 - the name of the header
SECRET_PARAMETER: Final = "secret"  # noqa: S105 - the name of the parameter
_GZIP: Final = frozenset({b"gzip", b"x-gzip"})
CHECK_HEADER: Final = "x-segrelay-check"
"""The header of a check: its request is authenticated and read, and nothing is stored."""
_CHECK: Final = CHECK_HEADER.encode()
_SECRET: Final = SECRET_HEADER.encode()
REQUEST_HEADER: Final = "x-request-id"
"""The header of each answer with the id of its request, as the log and `segrelay why` have it."""
LOG: Final = structlog.get_logger()


class _Answer(Response):
    """An answer of JSON with the id of its request, if it has one."""

    body: bytes

    def __init__(self, status: int, value: Mapping[str, object], name: str = "") -> None:
        # Nothing of what Starlette's own would do for any content.
        self.status_code, self.background = status, None
        self.body = orjson.dumps(value)
        self.raw_headers = [
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", b"application/json"),
        ]
        if status in _LATER:
            self.raw_headers.append((b"retry-after", b"%d" % RETRY_AFTER_SECONDS))
        if name:
            self.raw_headers.append((REQUEST_HEADER.encode(), name.encode()))


_LATER: Final = frozenset({408, 503})
"""The statuses after which a request should be sent again in a while."""


class _Request:
    """A request to the webhook, as the server hands it over.

    Attributes:
        name: The request's id, under which the log has it.
        headers: The headers, by their names in lower case; of one that came twice, the first value.
    """

    __slots__ = ("_begun_at", "_receive", "_scope", "headers", "name")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.name = new_request_id()
        self._begun_at = time.monotonic()
        self.headers: Mapping[bytes, bytes] = dict(reversed(scope["headers"]))
        self._scope = scope
        self._receive = receive

    @property
    def is_check(self) -> bool:
        """Say whether nothing of it is to be stored."""
        return _CHECK in self.headers

    @property
    def is_gzip(self) -> bool:
        return self.headers.get(b"content-encoding", b"").strip().lower() in _GZIP

    @property
    def secret(self) -> str:
        """Return the secret that was sent; "" = none was."""
        sent = self.headers.get(_SECRET, b"").decode("latin-1")
        return sent or QueryParams(self._scope["query_string"]).get(SECRET_PARAMETER, "")

    def line(self, stored: Published, status: int) -> dict[str, object]:
        """Return the line of the log about this request, without its content and its URL."""
        return {
            "status": status,
            "request": self.name,
            "accepted": stored.accepted,
            "quarantined": stored.quarantined,
            "check": self.is_check,
            "elapsed_seconds": round(time.monotonic() - self._begun_at, 4),
        }

    async def next_chunk(self) -> tuple[bytes, bool]:
        """Return the next piece of its body, and whether there is more.

        Raises:
            ClientDisconnect: The client went away.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        return message.get("body", b""), message.get("more_body", False)


@dataclass(slots=True)
class Receiver:
    """The receiver of webhooks for one configuration.

    Args:
        secrets: The secrets, of which each is valid.
        intake: The intake, which stores the events of bodies.
        ready: A function that says why nothing can be stored now; "" = it can. Called from a
            thread.
        problems: A function that returns the names of all problems of health. Called from a thread.
        record: The record of what is answered, for `segrelay status`.
        inspect: A function that says what a body would become, without storing it. Called from a
            thread.
        max_bytes: The largest size of a body, as sent and unpacked.
    """

    secrets: Sequence[bytes]
    intake: Intake
    ready: Callable[[], str]
    inspect: Callable[[Body], dict[str, object]]
    max_bytes: int
    problems: Callable[[], Sequence[str]] = tuple
    record: AnswerRecord | None = None
    _memory: BodyMemory = field(default_factory=BodyMemory)
    _large_turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a webhook, whatever happens."""
        request = _Request(scope, receive)
        outcome: Published | _Answer | Exception
        try:
            outcome = await self._outcome(request)
        except Exception as error:  # noqa: BLE001 - this is the edge
            outcome = error
        if isinstance(outcome, RequestRefused) and outcome.status == TOO_LARGE:
            # An error, for the operators: Lytics drops the events.
            message = f"A request was refused: {outcome.message}"
            LOG.error("webhook.too_large", request=request.name, message=message)
        await self._conclude(request, outcome)(scope, receive, send)

    async def _outcome(self, request: _Request) -> Published | _Answer:
        """Store the events of a webhook and return their counts; for a check, return the answer."""
        if not self._is_authentic(request):
            raise RequestRefused(
                401,
                "The secret is missing or wrong: send it in the header X-Segrelay-Secret "
                "or the URL parameter `secret`.",
            )
        with HeldMemory(self._memory) as memory:
            body = await self._read(request, memory)
            if request.is_check:
                checked = await asyncio.to_thread(self.inspect, Body(body))
                return _Answer(200, {"check": True, **checked}, request.name)
            return await self._stored(body, memory, is_gzip=request.is_gzip)

    def _conclude(self, request: _Request, outcome: Published | _Answer | Exception) -> _Answer:
        """Return the answer to a webhook, and log it."""
        if isinstance(outcome, Published):
            stored, answer = outcome, _stored(outcome, request.name)
        else:
            stored = Published()
            answer = outcome if isinstance(outcome, _Answer) else _refused(outcome, request.name)
        _log(answer.status_code, request.line(stored, answer.status_code))
        if self.record is not None and not request.is_check:
            counts = (answer.status_code, stored.accepted, stored.quarantined)
            self.record.note(WebhookRequest(request.name, *counts, stored.people))
        return answer

    async def is_alive(self, _request: Request) -> Response:
        return _Answer(200, {"alive": True})

    async def is_ready(self, _request: Request) -> Response:
        problem = await asyncio.to_thread(self.ready)
        # Only names: whoever can reach the receiver may ask.
        problems = [] if problem else list(await asyncio.to_thread(self.problems))
        document = {"ready": not problem, "problem": problem, "problems": problems}
        return _Answer(503 if problem else 200, document)

    def _is_authentic(self, request: _Request) -> bool:
        given = request.secret.encode()
        # All are compared, so that the time tells nothing about which is near.
        valid = [hmac.compare_digest(given, secret) for secret in self.secrets]
        return bool(given) and any(valid)

    async def _read(self, request: _Request, memory: HeldMemory) -> bytes:
        larger = body_too_large(f"larger than {self.max_bytes:,} bytes")
        announced = request.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > self.max_bytes:
            raise larger
        chunks: list[bytes] = []
        more = True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    chunk, more = await request.next_chunk()
                    chunks.append(chunk)
                    memory.take(len(chunk))
                    if memory.size > self.max_bytes:
                        raise larger
        except TimeoutError:
            told = f"The body did not arrive within {BODY_SECONDS:.0f} s."
            raise RequestRefused(408, told) from None
        return b"".join(chunks)

    async def _stored(self, sent: bytes, memory: HeldMemory, *, is_gzip: bool) -> Published:
        """Store a body; large ones are unpacked and stored one at a time, small ones don't wait."""
        text: bytes | None = sent
        if is_gzip:
            try:
                text = await asyncio.to_thread(unpack, sent, SMALL_BYTES)
            except RequestRefused:
                text = None
            else:
                memory.take(len(text))
        if text is not None and len(text) <= SMALL_BYTES:
            return await self.intake.take(Body(text))
        async with self._large_turn:
            if text is None:
                text = await asyncio.to_thread(unpack, sent, self.max_bytes)
            body = Body(text)
            await asyncio.to_thread(body.prepare)
            return await self.intake.take(body)


def _stored(stored: Published, name: str) -> _Answer:
    """Return the answer to a request whose events are stored."""
    if stored.problems:
        first = stored.problems[0]
        why = f"{first.reason}: {first.message}"
        LOG.info("webhook.quarantined", request=name, count=stored.quarantined, first=why)
    return _Answer(200, {"accepted": stored.accepted, "quarantined": stored.quarantined}, name)


def _refused(error: Exception, name: str) -> _Answer:
    """Return the answer to a request whose events are not stored."""
    match error:
        case RequestRefused():
            return _Answer(error.status, {"error": error.message}, name)
        case ClientDisconnect():
            return _Answer(499, {}, name)
        case RedisUnavailable() | RedisMismatch():
            LOG.warning("webhook.unavailable", request=name, message=error.message)
            return _Answer(503, {"error": error.message}, name)
        case _:
            return _failed(error, name)


def build_app(receiver: Receiver, path: str) -> ASGIApp:
    """Return the ASGI application; `path` is where webhooks are posted."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with receiver.record.kept() if receiver.record else nullcontext():
            yield
            await receiver.intake.close()

    routes = [
        Route(path, receiver, methods=["POST"]),
        Route("/healthz", receiver.is_alive, methods=["GET"]),
        Route("/readyz", receiver.is_ready, methods=["GET"]),
    ]
    others = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={404: _unknown_path, 405: _wrong_method, Exception: _bug},
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The layers of Starlette would take as long as the receiver, which answers by itself.
        is_webhook = scope["type"] == "http" and scope["path"] == path
        to: ASGIApp = receiver if is_webhook and scope["method"] == "POST" else others
        await to(scope, receive, send)

    return app


async def _unknown_path(request: Request, _error: Exception) -> Response:
    """Answer 421: a 404 would make Lytics drop the events of a mistyped URL for good."""
    return _elsewhere(421, f"Nothing is received at {request.url.path}.")


async def _wrong_method(request: Request, _error: Exception) -> Response:
    return _elsewhere(405, f"{request.method} is not answered here; webhooks are POSTs.")


async def _bug(_request: Request, error: Exception) -> Response:
    return _failed(error, new_request_id())


def _elsewhere(status: int, message: str) -> Response:
    """Answer a request that is no webhook, and log it as one line."""
    name = new_request_id()
    _log(status, {"status": status, "request": name})
    return _Answer(status, {"error": message}, name)


REFUSED: Final = frozenset({401, 405, 421})
"""Statuses of requests that anybody on the network can cause in any number."""
REFUSAL_LINES: Final = 10
REFUSAL_SECONDS: Final = 10.0


_REFUSED_AT: Final = defaultdict[int, deque[float]](lambda: deque(maxlen=REFUSAL_LINES))


def _log(status: int, line: Mapping[str, object]) -> None:
    """Log an answer as one line; of refusals only some, so that nobody fills the disk."""
    if status in REFUSED:
        logged_at, now = _REFUSED_AT[status], time.monotonic()
        if len(logged_at) == REFUSAL_LINES and now - logged_at[0] < REFUSAL_SECONDS:
            return
        logged_at.append(now)
    with suppress(OSError):  # what is stored is answered also where the log's disk is full
        log_often("webhook.answered", [line])


def _failed(error: Exception, name: str) -> _Answer:
    message = error.message if isinstance(error, SegrelayError) else type(error).__name__
    LOG.error("webhook.failed", request=name, error=message)
    told = {"error": "The body could not be stored; it is safe to send it again."}
    return _Answer(500, told, name)


@dataclass(slots=True)
class Inspector:
    """Answers checks: whether anything can be stored, and what would become of a body.

    Args:
        client: The client of checks alone, with short timeouts, so that no request waits behind a
            check.
    """

    client: Redis
    settings: Settings
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def why_not_ready(self) -> str:
        """Say why nothing can be stored now; "" = it can."""
        with self._lock:
            try:
                return CapacityMeter(self.client, self.settings).memory()
            except SegrelayError as error:
                return error.message

    def inspect(self, body: Body) -> dict[str, Any]:
        """Return what would become of a body, or of its first 1,000 payloads.

        Raises:
            RequestRefused: It holds more payloads than are taken.
        """
        with self._lock:
            publisher = Publisher(self.client, self.settings, dry_run=True)
            (published,) = publisher.publish_each(
                [body.payloads()], portion=PORTION, together=PORTION
            )
            if body.refusal is not None:
                raise body.refusal
            return published.document()

"""What the receiver answers: the contract of lytics.md, section 1, as a Starlette application.

Lytics tries again whatever is not answered 200, except 400, 404 and 413, whose events it drops for
good. So everything that is authenticated and stored is answered 200, also what is no JSON, and no
answer of ours is a 400.
"""

from __future__ import annotations

import asyncio
import hmac
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import orjson
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from producer.webhook.intake import Intake
from worker.errors import RedisMismatch, RedisUnavailable, SegrelayError

LARGEST_BODY_BYTES: Final = 64 * 1024 * 1024
"""As sent, and as decompressed."""
BODIES_IN_MEMORY_BYTES: Final = 256 * 1024 * 1024
"""Of all requests that are under way; beyond it, further ones have to wait."""
BODY_SECONDS: Final = 60.0
"""In which a body has to arrive; who is slower is asked to send it again."""
RETRY_AFTER_SECONDS: Final = 5
SECRET_HEADER: Final = "x-segrelay-secret"  # noqa: S105 - the name of the header
SECRET_PARAMETER: Final = "secret"  # noqa: S105 - the name of the parameter
CHECK_HEADER: Final = "x-segrelay-check"
"""A request that carries it is authenticated and read, and nothing of it is stored."""
LOG: Final = structlog.get_logger()


class _Refused(Exception):  # noqa: N818 - an answer, no error of ours
    """The request is answered without being stored.

    Args:
        status: Of the answer.
        message: For whoever reads Lytics' log.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(slots=True)
class Receiver:
    """Receives for one configuration.

    Args:
        secrets: Of which each is valid.
        intake: Where bodies go.
        ready: Says why nothing can be stored now; "" = it can. Called from a thread.
        inspect: Says what a body would become, without storing it. Called from a thread.
    """

    secrets: Sequence[bytes]
    intake: Intake
    ready: Callable[[], str]
    inspect: Callable[[bytes], dict[str, object]]
    _bytes_in_memory: int = 0

    async def receive(self, request: Request) -> Response:
        """Answer a webhook."""
        try:
            self._authenticate(request)
            body = await self._body(request)
            if CHECK_HEADER in request.headers:
                found = await asyncio.to_thread(self.inspect, body)
                return _json(200, {"check": True, **found})
            stored = await self.intake.take(body)
        except _Refused as refused:
            return _json(refused.status, {"error": refused.message})
        except ClientDisconnect:
            return Response(status_code=499)
        except (RedisUnavailable, RedisMismatch) as error:
            LOG.warning("webhook.unavailable", message=error.message)
            return _json(503, {"error": error.message})
        if stored.problem:
            LOG.info("webhook.quarantined", count=stored.quarantined, first=stored.problem)
        return _json(200, {"accepted": stored.accepted, "quarantined": stored.quarantined})

    async def is_alive(self, _request: Request) -> Response:
        """Say that the process answers."""
        return _json(200, {"alive": True})

    async def is_ready(self, _request: Request) -> Response:
        """Say whether events can be stored now."""
        problem = await asyncio.to_thread(self.ready)
        return _json(503 if problem else 200, {"ready": not problem, "problem": problem})

    def _authenticate(self, request: Request) -> None:
        given = request.headers.get(SECRET_HEADER) or request.query_params.get(SECRET_PARAMETER)
        given_bytes = (given or "").encode()
        # All are compared, so that the time tells nothing about which is near.
        valid = [hmac.compare_digest(given_bytes, secret) for secret in self.secrets]
        if not given or not any(valid):
            raise _Refused(
                401,
                "The secret is missing or wrong: send it in the header X-Segrelay-Secret "
                "or the URL parameter `secret`.",
            )

    async def _body(self, request: Request) -> bytes:
        if self._bytes_in_memory > BODIES_IN_MEMORY_BYTES:
            raise _Refused(503, "Too many large requests are under way; send it again.")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > LARGEST_BODY_BYTES:
            raise _too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    size += len(chunk)
                    self._bytes_in_memory += len(chunk)
                    if size > LARGEST_BODY_BYTES:
                        raise _too_large()
        except TimeoutError:
            raise _Refused(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None
        finally:
            self._bytes_in_memory -= size
        body = b"".join(chunks)
        if request.headers.get("content-encoding", "").strip().lower() in {"gzip", "x-gzip"}:
            return await asyncio.to_thread(_decompressed, body)
        return body


def build_app(receiver: Receiver, path: str) -> Starlette:
    """Return the ASGI application; `path` is where webhooks are posted."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await receiver.intake.close()

    routes = [
        Route(path, receiver.receive, methods=["POST"]),
        Route("/healthz", receiver.is_alive, methods=["GET"]),
        Route("/readyz", receiver.is_ready, methods=["GET"]),
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={404: _unknown_path, 405: _wrong_method, Exception: _bug},
    )


async def _unknown_path(request: Request, _error: Exception) -> Response:
    """Answer 421: a 404 would make Lytics drop the events of a mistyped URL for good."""
    return _json(421, {"error": f"Nothing is received at {request.url.path}."})


async def _wrong_method(request: Request, _error: Exception) -> Response:
    return _json(405, {"error": f"{request.method} is not answered here; webhooks are POSTs."})


async def _bug(_request: Request, error: Exception) -> Response:
    message = error.message if isinstance(error, SegrelayError) else type(error).__name__
    LOG.error("webhook.failed", error=message)
    return _json(500, {"error": "The body could not be stored; it is safe to send it again."})


def _too_large() -> _Refused:
    limit = LARGEST_BODY_BYTES // 1024 // 1024
    return _Refused(413, f"The body is larger than {limit} MiB; make the job's batches smaller.")


def _decompressed(body: bytes) -> bytes:
    """Return what a gzip body holds; what is no gzip is returned as it is, to be quarantined."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = inflater.decompress(body, LARGEST_BODY_BYTES + 1)
    except zlib.error:
        return body
    if len(text) > LARGEST_BODY_BYTES:
        raise _too_large()
    return text if inflater.eof else body


def _json(status: int, value: dict[str, object]) -> Response:
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status in {408, 503} else None
    return Response(orjson.dumps(value), status, media_type="application/json", headers=headers)

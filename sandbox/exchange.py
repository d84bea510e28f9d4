"""HTTP requests and their answers, whole or deliberately broken, over ASGI; and their rate.

Answers have the shapes that Insider uses: a status, a body, headers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

_JSON: Final = (b"content-type", b"application/json")
_HTML: Final = (b"content-type", b"text/html; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Reply:
    """The sandbox's answer to one request.

    Attributes:
        headers: The headers without the length, which the server adds.
        failed: The positions in `users` of those that were refused.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)
    failed: frozenset[int] = frozenset()


def json_answer(status: int, value: Any) -> Reply:
    """Return an answer with a JSON body."""
    return Reply(status, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))


def error(status: int, text: str) -> Reply:
    """Return an error about the body or the rate, in Insider's form."""
    return json_answer(status, {"error": text})


def denial(status: int, message: str) -> Reply:
    """Return an error about credentials, in Insider's form."""
    return json_answer(status, {"success": False, "message": message})


def html_page(status: int) -> Reply:
    """Return the HTML page that a proxy in front of Insider answers with."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\r\n"
    return Reply(status, page.encode(), (_HTML,))


def counted(users: int, errors: Mapping[str, Sequence[str]], failed: frozenset[int]) -> Reply:
    """Return the 200 of a write: the number of users taken, and the errors of the others.

    An empty side is `{}` without a count. Insider does not say whether the count of the other
    side is of users or of errors.
    """
    successful = {"count": users - len(failed)} if users > len(failed) else {}
    fail = {"count": len(failed), "errors": errors} if errors else {}
    body = orjson.dumps({"data": {"successful": successful, "fail": fail}})
    return Reply(200, body, failed=failed)


AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONNECTION: Final = "segrelay.sandbox.connection"
"""Key of the transport in the ASGI scope; with it a connection is closed without an answer."""
_MAX_BODY_BYTES: Final = 64_000_000


class Exchange:
    """A request, and the connection for its answer."""

    def __init__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self._query: bytes = scope["query_string"]
        self._transport: asyncio.Transport | None = scope.get("extensions", {}).get(CONNECTION)
        self._receive = receive
        self._send = send

    @property
    def is_open(self) -> bool:
        """Say whether the client is still connected."""
        return self._transport is None or not self._transport.is_closing()

    def query(self, name: str, default: str = "") -> str:
        """Return the first value of a parameter of the URL."""
        found = parse_qs(self._query.decode("latin-1"), keep_blank_values=True).get(name)
        return found[0] if found else default

    @property
    def queries(self) -> dict[str, str]:
        """Return the first value of each parameter of the URL."""
        found = parse_qs(self._query.decode("latin-1"), keep_blank_values=True)
        return {name: values[0] for name, values in found.items()}

    async def body(self) -> bytes | None:
        """Read the whole body; None if the client went away, or if it is absurdly large."""
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            if size > _MAX_BODY_BYTES:
                return None
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def answer(self, answer: Reply) -> None:
        """Send the whole answer to the client."""
        headers = list(answer.headers)
        if not any(name == b"date" for name, _ in headers):
            headers.append((b"date", formatdate(usegmt=True).encode()))
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )
        await self._send({"type": "http.response.body", "body": answer.body})

    async def close(self) -> None:
        """Close the connection without another byte."""
        if self._transport is None:
            raise ConnectionResetError("closed without an answer")
        self._transport.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class SlidingWindow:
    """The times of requests in a sliding window, and the largest number in any window.

    Attributes:
        highest: The largest number of requests that any window held since the start.
    """

    def __init__(self) -> None:
        self.highest = 0
        self._times: deque[float] = deque()

    def count(self, now: float, window_seconds: float) -> int:
        """Return the number of requests in the window that ends now."""
        times = self._times
        while times and times[0] <= now - window_seconds:
            times.popleft()
        return len(times)

    def add(self, now: float, window_seconds: float) -> None:
        self._times.append(now)
        self.highest = max(self.highest, self.count(now, window_seconds))

    def wait_seconds(self, now: float, window_seconds: float) -> float:
        """Return the seconds until the oldest request leaves the window."""
        return max(0.0, self._times[0] + window_seconds - now) if self._times else 0.0

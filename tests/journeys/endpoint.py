"""An endpoint of somebody's on loopback: it remembers what comes, and answers as it is told."""

import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import orjson


@dataclass(frozen=True)
class Came:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes = b""
    at: float = 0.0


Respond = Callable[[Came], tuple[int, Any]]
"""Returns status and answer: JSON, or bytes as they are. Status 0 cuts the connection instead."""
RETRY_AFTER_SECONDS = 1
"""What a 429 tells in `Retry-After`."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that is killed breaks its connections."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*_)


class Endpoint:
    """Serves in threads of its own, for as long as its block lasts.

    Args:
        respond: Returns status and JSON for a request; called for one request at a time.
        tls: Secures the connections; without it they are not secured.
    """

    def __init__(self, respond: Respond, tls: ssl.SSLContext | None = None) -> None:
        self.came: list[tuple[Came, int]] = []
        self._respond = respond
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._answering())
        self._server.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, came: Came) -> tuple[int, Any]:
        with self._lock:
            status, document = self._respond(came)
            self.came.append((came, status))
            return status, document

    def _answering(self) -> type[BaseHTTPRequestHandler]:
        take = self._take

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", "0"))
                body = self.rfile.read(size)
                if len(body) < size:
                    self.close_connection = True  # whoever sent it was killed
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                came = Came(
                    self.command, self.path, headers, _document(body), body, time.monotonic()
                )
                status, answer = take(came)
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                if status == HTTPStatus.TOO_MANY_REQUESTS:
                    self.send_header("Retry-After", str(RETRY_AFTER_SECONDS))
                if status == HTTPStatus.NO_CONTENT:  # a body would be taken for the next answer
                    self.end_headers()
                    return
                text = answer if isinstance(answer, bytes) else orjson.dumps(answer)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815 - the server's names

            def log_message(self, *_: object) -> None:
                pass

        return Answering


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None

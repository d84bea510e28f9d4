"""An endpoint of somebody's on loopback: it remembers what comes, and answers as it is told."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
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


Respond = Callable[[Came], tuple[int, Any]]


class Endpoint:
    """Serves in threads of its own, for as long as its block lasts.

    Args:
        respond: Returns status and JSON for a request; called for one request at a time.
    """

    def __init__(self, respond: Respond) -> None:
        self.came: list[tuple[Came, int]] = []
        self._respond = respond
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._answering())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

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
                headers = {name.lower(): value for name, value in self.headers.items()}
                document = orjson.loads(body) if body else None
                status, answer = take(Came(self.command, self.path, headers, document))
                text = orjson.dumps(answer)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_PUT = do_POST  # noqa: N815 - the server's names

            def log_message(self, *_: object) -> None:
                pass

        return Answering

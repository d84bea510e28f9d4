"""Serves the receiver on uvicorn: limits slow and silent clients, and stops without a loss."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import resource
import signal
import socket
from asyncio import TimerHandle
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from segrelay.worker.contract.own_processes import switch_threads_often
from segrelay.worker.errors import PortTaken

KEEP_ALIVE_SECONDS: Final = 75
"""The seconds after which an idle connection is closed: proxies usually do it after 60 s."""
HEADER_SECONDS: Final = 20.0
"""The seconds in which a client has to send a request's headers."""
LARGEST_HEADERS_BYTES: Final = 64 * 1024
LINGER_SECONDS: Final = 0.5
"""The time in which open connections are still answered after the signal to stop."""
STOP_SECONDS: Final = 10
"""The seconds in which requests in progress may end once the server is told to stop."""
PLAIN: Final[dict[str, Any]] = {
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
}
"""Options of uvicorn: only HTTP, no logs of its own, and no trust in what proxies say."""
_BACKLOG: Final = 4_096
_MOST_CONNECTIONS: Final = 65_536
_COLLECT_AFTER: Final = (10_000, 20, 50)
"""Thresholds of the garbage collector: hardly anything of a request is left to it, and where the
process keeps much, looking through all of it holds every request up for 0.1 s."""


def serve(
    app: Any,
    host: str,
    port: int,
    *,
    on_ready: Callable[[str], None],
    hint: str = "change producer.webhook.listen",
) -> None:
    """Serve until SIGINT or SIGTERM, then answer what is under way and end.

    Raises:
        PortTaken: Somebody listens there already.
    """
    _raise_file_limit()
    _tune_interpreter()
    with listening(host, port, hint=hint) as listener:
        shown_host, shown_port = listener.getsockname()[:2]
        shown = f"[{shown_host}]" if ":" in shown_host else shown_host
        config = _Config(
            app,
            http=PromptProtocol,
            lifespan="on",
            backlog=_BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            **PLAIN,
        )
        server = _ReceiverServer(config, lambda: on_ready(f"http://{shown}:{shown_port}"))
        server.run(sockets=[listener])


class PromptProtocol(HttpToolsProtocol):
    """Closes connections whose client sends a request's headers too slowly, or too many of them."""

    _waiting: TimerHandle | None = None
    _header_bytes = 0
    _has_headers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes; too many of them without a whole header end the connection."""
        begins = self._waiting is None and self.timeout_keep_alive_task is not None
        if self._waiting is not None:
            if self._header_bytes > LARGEST_HEADERS_BYTES:
                self._close()
                return
            self._header_bytes += len(data)
        self._has_headers = False
        super().data_received(data)
        if begins and not self._has_headers:  # nearly always all headers come at once
            self._wait(len(data))

    def on_headers_complete(self) -> None:
        """Stop waiting for headers; a server that ends closes the connection with its answer."""
        self._has_headers = True
        self._wait_no_longer()
        super().on_headers_complete()
        if self.cycle is not None and getattr(self.config, "is_stopping", False):
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait(self, header_bytes: int = 0) -> None:
        self._header_bytes = header_bytes
        self._waiting = self.loop.call_later(HEADER_SECONDS, self._close)

    def _wait_no_longer(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class _Config(uvicorn.Config):
    """The settings of all connections, which also say whether the server ends."""

    is_stopping = False


class OrderlyServer(uvicorn.Server):
    """A server that ends with status 0 on a signal, where uvicorn would raise the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM: a first one stops the server in order, a second at once."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self.stop)
        yield

    def stop(self) -> None:
        """Stop the server once open requests are answered; a second call stops it at once."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a cut is told by ourselves
        self.force_exit = self.should_exit
        self.should_exit = True


class _ReceiverServer(OrderlyServer):
    """The receiver's uvicorn server, which reports when it is ready."""

    config: _Config

    def __init__(self, config: _Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the server, and report that it listens."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no further connections; answer for a moment what open ones still send, and end.

        A connection that is closed at once is reset if its client has just sent a request.
        """
        self.config.is_stopping = True
        for server in self.servers:
            server.close()
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)


@contextlib.contextmanager
def listening(host: str, port: int, *, hint: str) -> Iterator[socket.socket]:
    """Bind a socket, and close it at the end of the `with` block.

    Raises:
        PortTaken: Somebody listens there already.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise PortTaken(_why_not(error, host, port, hint)) from error
        yield listener


def _why_not(error: OSError, host: str, port: int, hint: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} of {host} is in use: {hint}, or end what listens there"
        case errno.EACCES:
            return f"port {port} of {host} may not be listened on by this user: {hint}"
        case _:
            return f"{host}:{port} can't be listened on ({error.strerror}): {hint}"


def _tune_interpreter() -> None:
    """Switch threads often, and keep the garbage collector away from all that is loaded by now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    switch_threads_often()


def _raise_file_limit() -> None:
    """Raise the limit of open files as far as the system allows: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

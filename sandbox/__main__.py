"""The sandbox as a process: `python -m segrelay.sandbox` on uvicorn, on this machine by default.

The first line of its standard output is its URL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

import orjson
import structlog
import uvicorn
from pydantic import ValidationError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from segrelay.sandbox.app import Sandbox
from segrelay.sandbox.exchange import CONNECTION
from segrelay.sandbox.settings import SandboxSettings, described

DEFAULT_PORT: Final = 8900
LOOPBACK: Final = "127.0.0.1"
LOG_FORMAT_VARIABLE: Final = "SEGRELAY_LOG_FORMAT"
"""The environment variable for the log's format: `json` or `text`, by default text on terminals."""
_GC_THRESHOLDS: Final = (100_000, 20, 100)
"""Thresholds of the garbage collector; at the defaults it takes half of the time, as a request has
20,000 objects, and no cycles."""
_CHUNK_BYTES: Final = 1_024
_OFFERS: Final = (
    "Stands in for Insider (upsert, attribute/delete, profile, metadata/columns) and for Lytics "
    "(scan, entity, collect, templates, webhooks). "
    "Look at /_sandbox/summary; switch faults with POST /_sandbox/settings. Ctrl-C ends it."
)


def main() -> None:
    """Serve until SIGINT or SIGTERM, or until standard input ends, if that is asked for."""
    parser = argparse.ArgumentParser("python -m segrelay.sandbox", description=_OFFERS)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    parser.add_argument("--host", default=LOOPBACK, help="the address to listen on")
    parser.add_argument("--settings", default="{}", help="all switches as a JSON object")
    parser.add_argument("--until-stdin-ends", action="store_true", help="end with standard input")
    asked = parser.parse_args()
    settings = settings_of(asked.settings)
    _configure_log()
    with _listening(asked.host, asked.port) as listener:
        host, port = listener.getsockname()[:2]
        _tell(f"http://{host}:{port}", _OFFERS)
        config = uvicorn.Config(
            Sandbox(settings),
            http=_ClosableProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=2_048,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        gc.set_threshold(*_GC_THRESHOLDS)
        _SandboxServer(config, until_stdin_ends=asked.until_stdin_ends).run(sockets=[listener])


def _tell(*lines: str) -> None:
    """Print lines; whoever can't be told the address can't use the sandbox, so it ends."""
    try:
        print(*lines, sep="\n", flush=True)  # noqa: T201 - the interface
    except OSError as error:
        # Python would try to write it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _end(1, f"Standard output could not be written: {error.strerror}.")


def settings_of(text: str) -> SandboxSettings:
    """Read all switches from JSON; what can't be read ends the process with a message."""
    try:
        return SandboxSettings.model_validate(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        _end(2, f"--settings is not JSON: {error}")
    except ValidationError as problems:
        _end(2, f"the sandbox can't be set like that: {described(problems)}")


def _configure_log() -> None:
    chosen = os.environ.get(LOG_FORMAT_VARIABLE, "")
    is_text = chosen == "text" or (chosen != "json" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if is_text else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((host, port))
            listener.listen()  # who reads the address below may connect at once
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            why = "in use" if is_taken else f"not to be had ({error.strerror})"
            _end(1, f"port {port} of {host} is {why}: choose another one with --port")
        yield listener


def _end(code: int, message: str) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201 - nothing else is told
    sys.exit(code)


class _ClosableProtocol(HttpToolsProtocol):
    """A protocol that gives the application its transport, to close it without an answer."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self.transport}  # type: ignore[dict-item]


class _SandboxServer(uvicorn.Server):
    """A server that ends with status 0 on a signal, where uvicorn would raise the signal again."""

    def __init__(self, config: uvicorn.Config, *, until_stdin_ends: bool) -> None:
        super().__init__(config)
        self._until_stdin_ends = until_stdin_ends

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self._stop)
        if self._until_stdin_ends:
            loop.add_reader(sys.stdin.fileno(), self._read_stdin)
        yield

    def _stop(self) -> None:
        """Answer open requests and end; a second call ends at once."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a cut is no news here
        self.force_exit = self.should_exit
        self.should_exit = True

    def _read_stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), _CHUNK_BYTES):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop()


if __name__ == "__main__":
    main()

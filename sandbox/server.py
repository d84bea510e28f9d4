"""The sandbox on uvicorn: one process, loopback by default."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from segrelay.producer.webhook.server import PLAIN, OrderlyServer, listening
from segrelay.sandbox.app import Sandbox
from segrelay.sandbox.exchange import CONNECTION
from segrelay.sandbox.settings import SandboxSettings

LOOPBACK: Final = "127.0.0.1"
_KEEP_ALIVE_SECONDS: Final = 60
_BACKLOG: Final = 2_048
_STOP_SECONDS: Final = 1
_GC_THRESHOLDS: Final = (100_000, 20, 100)
"""Thresholds of the garbage collector; at the defaults it takes half of the time, as a request has
20,000 objects, and no cycles."""
_CHUNK_BYTES: Final = 1_024
_OFFERS: Final = (
    "Stands in for Insider (upsert, attribute/delete, profile, metadata/columns) and for Lytics "
    "(scan, entity, collect, templates, webhooks). "
    "Look at /_sandbox/summary; switch faults with POST /_sandbox/settings. Ctrl-C ends it."
)


def serve(
    settings: SandboxSettings, port: int, *, host: str = LOOPBACK, until_stdin_ends: bool = False
) -> None:
    """Serve until SIGINT or SIGTERM; the first line on standard output is the URL."""
    with listening(host, port, hint="choose another with --port") as listener:
        shown_host, shown_port = listener.getsockname()[:2]
        print(f"http://{shown_host}:{shown_port}", flush=True)  # noqa: T201 - the interface
        print(_OFFERS, flush=True)  # noqa: T201 - the interface
        config = uvicorn.Config(
            Sandbox(settings),
            http=_ClosableProtocol,
            lifespan="off",
            date_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            **PLAIN,
        )
        server = _SandboxServer(config, until_stdin_ends=until_stdin_ends)
        gc.set_threshold(*_GC_THRESHOLDS)
        server.run(sockets=[listener])


class _ClosableProtocol(HttpToolsProtocol):
    """A protocol that gives the application its transport, to close it without an answer."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self.transport}  # type: ignore[dict-item]


class _SandboxServer(OrderlyServer):
    """A server that can also stop when its standard input ends."""

    def __init__(self, config: uvicorn.Config, *, until_stdin_ends: bool) -> None:
        super().__init__(config)
        self._until_stdin_ends = until_stdin_ends

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if self._until_stdin_ends:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read_stdin)
        with super().capture_signals():
            yield

    def _read_stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), _CHUNK_BYTES):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.stop()

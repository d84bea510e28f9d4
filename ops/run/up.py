"""`segrelay up`: Redis, a worker, the receiver and Flower in one terminal.

They are children with a prefix each, restarted if they die and ended in order. They have process
groups of their own: Ctrl-C reaches only us, and we end them one by one.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Final
from urllib.parse import urlsplit

import typer

from segrelay.ops.embedded import LEAST_FREE_BYTES, ensure_running, stop
from segrelay.ops.sandbox import forget_people, marked_as_sandbox_run
from segrelay.ops.state.opened import load_for_redis
from segrelay.ops.status.alerts import start_announcer
from segrelay.ops.terminal.console import mention, wants_colour
from segrelay.ops.terminal.serving import (
    PARENT_VARIABLE,
    LogFormat,
    LogFormatName,
    end_with_parent,
    use_log_format,
)
from segrelay.worker.checks.triggers import check_triggers
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.contract.printable import printable
from segrelay.worker.contract.redis.connection import wait_ready
from segrelay.worker.contract.settings import (
    DEFAULT_SANDBOX,
    SANDBOX_VARIABLE,
    Settings,
    sandbox_url,
)
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.errors import ConfigurationInvalid, OperationsMustAct, PortTaken
from segrelay.worker.logs import FORMAT_VARIABLE

RESTARTS: Final = 5
RESTART_WINDOW_SECONDS: Final = 60.0
TOLD_AGAIN_SECONDS: Final = 60.0
"""Seconds after which it is told again that Redis can't be started."""
STOP_SECONDS: Final = 15.0
WRONGLY_CALLED: Final = 2
"""The exit code of a command that was called or configured wrongly."""
_LOOK_SECONDS: Final = 1.0

Print = Callable[[str, str], None]
"""A callback that takes a child's name and a line of its output."""


def own_command(*arguments: str) -> list[str]:
    """Return the command line of one of our commands, run by this very interpreter."""
    return own_module("segrelay.ops.main", *arguments)


class Child:
    """A child process that is started again if it dies."""

    def __init__(self, name: str, command: Sequence[str], show: Print) -> None:
        self.name, self._command, self._show = name, command, show
        self._starts: list[float] = []
        self.start()

    def start(self) -> None:
        """Start the process, and print its output line by line."""
        self._starts.append(time.monotonic())
        self.process = subprocess.Popen(
            self._command,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "PYTHONIOENCODING": "utf-8",
                PARENT_VARIABLE: "1",
            },
            stdin=subprocess.PIPE,  # held open, and never written to: it ends when we do
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            process_group=0,
            encoding="utf-8",
        )
        threading.Thread(target=self._pump, args=(self.process.stdout,), daemon=True).start()

    def _pump(self, lines: IO[str]) -> None:
        for line in lines:
            self._show(self.name, line.rstrip("\n"))

    def pause_seconds(self) -> float | None:
        """Return how long to wait before it is started again; None = it died too often."""
        since = time.monotonic() - RESTART_WINDOW_SECONDS
        self._starts = [at for at in self._starts if at > since]
        restarts = len(self._starts)
        return min(2.0**restarts / 4, 5.0) if restarts <= RESTARTS else None

    def stop(self) -> None:
        """Ask the child to end; kill its whole process group if it has not ended in time."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Supervisor:
    """Runs children until told to stop, or until one dies for good.

    Args:
        print_line: A function that prints a line of a child.
    """

    def __init__(self, print_line: Print) -> None:
        self._print = print_line
        self._children: list[Child] = []
        self._stop = threading.Event()

    def listen(self) -> None:
        """Handle Ctrl-C and SIGTERM from now on; `run` also obeys a signal that came before it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stop.set())

    def stop(self) -> None:
        """End the children, the last one first."""
        for child in reversed(self._children):
            child.stop()

    def start(self, name: str, *arguments: str) -> None:
        """Start one of our commands as a child that is restarted if it dies."""
        self._children.append(Child(name, own_command(name, *arguments), self._tell))

    def _tell(self, name: str, line: str) -> None:
        """Print a line of a child; end everything in order if the output's reader has gone."""
        try:
            self._print(name, line)
        except OSError:
            self._stop.set()

    def run(self, look: Callable[[], object]) -> int:
        """Wait; return 0 if told to stop, 1 if a child died for good, 2 if one was called wrongly.

        Args:
            look: A function that is called each second, to look after the embedded Redis.
        """
        while not self._stop.wait(_LOOK_SECONDS):
            look()
            for child in self._children:
                if (code := child.process.poll()) is None:
                    continue
                if code == WRONGLY_CALLED:
                    self._print(child.name, "can't work like that; it is not started again")
                    return code
                if (seconds := child.pause_seconds()) is None:
                    self._print(child.name, f"ended with {code} again and again; giving up")
                    return 1
                self._print(child.name, f"ended with {code}; starting it again")
                if not self._stop.wait(seconds):
                    child.start()
        return 0


_COLOURS = ("36", "33", "35", "32", "34")
_LOCK = threading.Lock()
_OF_DRAINS: Final = ("request.answered", "drain.ended")
_LOUD: Final = ("[warning", "[error", '"level": "warning"', '"level": "error"')


def up(
    *,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox",
            help="Deliver to a sandbox of its own instead of Insider, from a Redis of"
            " its own. Nothing real is touched. Other commands take part in the sandbox run with"
            f" {SANDBOX_VARIABLE}=1 in their environment; without it they are refused.",
        ),
    ] = False,
    log_format: LogFormat = None,
) -> None:
    """Run Redis, a worker and what else is configured; Ctrl-C ends it cleanly."""
    if sandbox and not sandbox_url(os.environ):
        os.environ[SANDBOX_VARIABLE] = DEFAULT_SANDBOX
    if sys.stdout.isatty() and FORMAT_VARIABLE not in os.environ:
        log_format = log_format or LogFormatName.TEXT
    use_log_format(log_format)
    end_with_parent()
    settings = load_for_redis(stays=True)
    sandbox_run = sandbox_url(os.environ)
    _check(settings)
    _refuse_taken_ports(settings, sandbox_run)
    supervisor = Supervisor(QuietLines(_line).show if sys.stdout.isatty() else _line)
    with ExitStack() as ending:
        if sandbox_run:
            ending.enter_context(marked_as_sandbox_run(settings, sandbox_run))
        look = _redis(settings, supervisor, ending)
        supervisor.listen()
        ending.callback(supervisor.stop)
        if sandbox_run:
            _start_sandbox(settings, supervisor, sandbox_run)
        supervisor.start("worker")
        if settings.producer.webhook:
            supervisor.start("serve")
        for name in filter(partial(getattr, settings), ("flower", "metrics", "console")):
            supervisor.start(name)
        start_announcer(settings, only_watches=True)
        code = supervisor.run(look)
        _line("up", "stopping")
    raise typer.Exit(code)


class QuietLines:
    """Lines of children for a terminal: of those about drains, one of a kind is shown a second.

    Warnings and errors are always shown.
    """

    def __init__(self, show: Print) -> None:
        self._show = show
        self._shown_at: dict[str, float] = {}

    def show(self, name: str, line: str) -> None:
        """Show a line, unless one of its kind was shown within this second."""
        kind = next((each for each in _OF_DRAINS if each in line), "")
        if kind and not any(word in line for word in _LOUD):
            now = time.monotonic()
            if now - self._shown_at.get(kind, -1.0) < 1.0:
                return
            self._shown_at[kind] = now
        self._show(name, line)


def _start_sandbox(settings: Settings, supervisor: Supervisor, url: str) -> None:
    port = str(urlsplit(url).port or 80)
    if forget_people(settings):
        _line("up", "the sandbox begins empty: whom an earlier sandbox run delivered is forgotten")
    supervisor.start("sandbox", "--port", port, "--sandbox-run")
    _line("up", f"a sandbox run: in another terminal, `export {SANDBOX_VARIABLE}={url}` and then")
    _line("up", "`segrelay send FILE`, `segrelay status` and all the others work on it")


def _refuse_taken_ports(settings: Settings, sandbox_run: str) -> None:
    """Refuse to start while another process has one of the ports."""
    for name in ("flower", "metrics", "console"):
        if section := getattr(settings, name):
            refuse_taken(section.host, section.port, f"set {name}.listen")
    if sandbox_run:
        parts = urlsplit(sandbox_run)
        hint = f"name another one, e.g. {SANDBOX_VARIABLE}=http://127.0.0.1:8901"
        refuse_taken(parts.hostname or "", parts.port or 80, hint)


def refuse_taken(host: str, port: int, hint: str) -> None:
    """Refuse to start while another process has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return  # its own start says what is wrong
            raise PortTaken(
                f"Something listens on {host}:{port} already: end it, or {hint}."
            ) from error


def _redis(settings: Settings, supervisor: Supervisor, ending: ExitStack) -> Callable[[], object]:
    """Start or check Redis; return a function that is called to look after it."""
    if settings.redis.url != EMBEDDED:
        for warning in wait_ready(settings.redis.url, replicas=settings.redis.replicas):
            _line("redis", warning)
        return int  # does nothing: it is not ours to look after
    supervisor.listen()  # an interrupt in the middle of the start would leave it running
    data_dir = settings.redis.data_dir
    if not ensure_running(data_dir).started_by_us:
        _line("redis", "was running already, and goes on when this ends")
        return int  # does nothing: it is not ours to look after
    ending.callback(_stop_redis, data_dir)
    _line("redis", "ready")
    return RedisWatch(data_dir).look


def _stop_redis(data_dir: Path) -> None:
    stop(data_dir)
    _line("redis", "stopped")


class RedisWatch:
    """Starts the embedded Redis again on its files if it died, as soon as its disk has room."""

    def __init__(self, data_dir: Path, least_free_bytes: int = LEAST_FREE_BYTES) -> None:
        self._data_dir = data_dir
        self._least_free_bytes = least_free_bytes
        self._pid = 0
        self._told_at = -math.inf

    def look(self) -> None:
        """Start the server if it does not run, and print that, or why it can't be started."""
        try:
            server = ensure_running(self._data_dir, least_free_bytes=self._least_free_bytes)
        except OperationsMustAct as error:
            if time.monotonic() - self._told_at >= TOLD_AGAIN_SECONDS:
                self._told_at = time.monotonic()
                _line("redis", f"{error.message} It is tried again every second.")
            return
        # The worker may have been quicker: whoever needs it starts it.
        if server.started_by_us or self._pid not in (0, server.pid):
            _line("redis", "had ended; started again on its files")
        self._pid, self._told_at = server.pid, -math.inf


def _check(settings: Settings) -> None:
    for warning in settings.warnings:
        mention(f"warning: {warning}")
    found = [one for one in check_triggers(settings, datetime.now(UTC)) if one.severity == "error"]
    errors = [f"triggers.{one.trigger}".rstrip(".") + f": {one.message}" for one in found]
    if errors:
        raise ConfigurationInvalid("\n".join(errors))


def _line(name: str, text: str) -> None:
    """Print a line after the name of its process; lines of several threads don't mix."""
    colour = _COLOURS[sum(map(ord, name)) % len(_COLOURS)]
    prefix = f"\x1b[{colour}m{name:<7}\x1b[0m" if wants_colour() else f"{name:<7}"
    with _LOCK:
        sys.stdout.write(f"{prefix} | {printable(text)}\n")
        sys.stdout.flush()

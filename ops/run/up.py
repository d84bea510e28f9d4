"""`segrelay up`: Redis, a worker, the receiver and Flower in one terminal."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from ops.embedded.cluster import LocalCluster
from ops.embedded.launch import write_private
from ops.embedded.lifecycle import ensure_running, stop
from ops.run.supervisor import Supervisor, own_command
from ops.sandbox.rehearsal import forget_people, rehearsing
from ops.state.opened import load_for_redis
from ops.status.notices.announcer import start_announcer
from ops.terminal.console import mention, wants_colour
from ops.terminal.serving import LogFormat, LogFormatName, use_log_format
from worker.checks.triggers import check_triggers
from worker.contract.printable import printable
from worker.contract.processes.workers import WORKER, processes_here
from worker.contract.redis.connection import connect, resolve_url, wait_ready
from worker.contract.settings import BROKER_VARIABLE, REDIS_VARIABLE, Settings, load_settings
from worker.contract.settings.sandboxed import DEFAULT_SANDBOX, SANDBOX_VARIABLE, sandbox_url
from worker.contract.settings.values.fields import EMBEDDED
from worker.errors import ConfigurationInvalid, OperationsMustAct, PortTaken, UsageWrong
from worker.logs import FORMAT_VARIABLE

_COLOURS = ("36", "33", "35", "32", "34")
_LOCK = threading.Lock()
_CLUSTER_FOLDER = "cluster"


def up(
    *,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox",
            help="Rehearse: deliver to a sandbox of its own instead of Insider, from a Redis of"
            " its own. Nothing real is touched. Other commands take part in the rehearsal with"
            f" {SANDBOX_VARIABLE}=1 in their environment; without it they are refused.",
        ),
    ] = False,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Try a Redis Cluster: start three masters and three replicas on this machine for"
            " the events. The embedded Redis carries Celery's messages.",
        ),
    ] = False,
    log_format: LogFormat = None,
) -> None:
    """Run Redis, a worker and what else is configured; Ctrl-C ends it cleanly."""
    if cluster and (sandbox or sandbox_url(os.environ)):
        raise UsageWrong("--cluster can't be combined with a rehearsal: leave --sandbox out.")
    if sandbox and not sandbox_url(os.environ):
        os.environ[SANDBOX_VARIABLE] = DEFAULT_SANDBOX
    if sys.stdout.isatty() and FORMAT_VARIABLE not in os.environ:
        log_format = log_format or LogFormatName.TEXT
    use_log_format(log_format)
    settings = load_for_redis(stays=True)
    if cluster and settings.redis.url != EMBEDDED:
        raise UsageWrong(f'--cluster needs redis.url = "{EMBEDDED}".')
    rehearsal = sandbox_url(os.environ)
    _check(settings)
    _refuse_taken_ports(settings, rehearsal)
    supervisor = Supervisor(_line)
    with ExitStack() as ending:
        if rehearsal:
            ending.enter_context(rehearsing(settings, rehearsal))
        look = _redis(settings, supervisor, ending)
        if cluster:
            settings = _in_cluster(settings, ending)
        _name_left_over(settings)
        ending.enter_context(supervisor)
        if rehearsal:
            _start_sandbox(settings, supervisor, rehearsal)
        _start_processes(settings, supervisor)
        start_announcer(settings)
        code = supervisor.run(look)
        _line("up", "stopping")
    raise typer.Exit(code)


def _start_processes(settings: Settings, supervisor: Supervisor) -> None:
    beside = {
        "worker": True,
        "serve": settings.producer.webhook,
        "flower": settings.flower,
        "metrics": settings.metrics,
    }
    for name in (name for name, section in beside.items() if section):
        supervisor.start(name, own_command(name))


def _start_sandbox(settings: Settings, supervisor: Supervisor, url: str) -> None:
    port = str(urlsplit(url).port or 80)
    if forget_people(settings):
        _line("up", "the sandbox begins empty: whom an earlier rehearsal delivered is forgotten")
    options = ("--port", port, "--accept-anything", "--rehearsal")
    supervisor.start("sandbox", own_command("sandbox", *options))
    _line("up", f"a rehearsal: in another terminal, `export {SANDBOX_VARIABLE}={url}` and then")
    _line("up", "`segrelay send FILE`, `segrelay status` and all the others work on it")


def _refuse_taken_ports(settings: Settings, rehearsal: str) -> None:
    """Refuse to start while another process has one of the ports."""
    if settings.flower:
        _refuse_taken(settings.flower.host, settings.flower.port, "set flower.listen")
    if settings.metrics:
        _refuse_taken(settings.metrics.host, settings.metrics.port, "set metrics.listen")
    if rehearsal:
        parts = urlsplit(rehearsal)
        hint = f"name another one, e.g. {SANDBOX_VARIABLE}=http://127.0.0.1:8901"
        _refuse_taken(parts.hostname or "", parts.port or 80, hint)


def _refuse_taken(host: str, port: int, hint: str) -> None:
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


def _name_left_over(settings: Settings) -> None:
    """Print which workers run here already, such as those of an `up` that was killed."""
    with closing(connect(resolve_url(settings.redis))) as client:
        here = processes_here(client)
    for one in here:
        if one.kind == WORKER:
            _line("up", f"a worker runs already: process {one.pid}; `kill {one.pid}` ends it")


def _redis(settings: Settings, supervisor: Supervisor, ending: ExitStack) -> Callable[[], None]:
    """Start or check Redis; return a function that is called to look after it."""
    if settings.redis.url != EMBEDDED:
        for warning in wait_ready(settings.redis.url, replicas=settings.redis.replicas):
            _line("redis", warning)
        return _nothing
    supervisor.listen()  # an interrupt in the middle of the start would leave it running
    data_dir = settings.redis.data_dir
    if not ensure_running(data_dir).started_by_us:
        _line("redis", "was running already, and goes on when this ends")
        return _nothing
    ending.callback(_stop_redis, data_dir)
    _line("redis", "ready")
    return _RedisWatch(settings)


def _in_cluster(settings: Settings, ending: ExitStack) -> Settings:
    """Start a Cluster for the events, and return the configuration that names it."""
    folder = settings.redis.data_dir / _CLUSTER_FOLDER
    _line("redis", "starting a Cluster of three masters and three replicas")
    started = ending.enter_context(LocalCluster(folder))
    named = {BROKER_VARIABLE: resolve_url(settings.redis), REDIS_VARIABLE: started.url}
    os.environ.update(named)
    file = folder / "environment"
    lines = (f"export {name}={shlex.quote(url)}\n" for name, url in named.items())
    write_private(file, "".join(lines).encode())
    _line("redis", f"the Cluster is ready; for commands in another terminal: . {file}")
    return load_settings()


def _stop_redis(data_dir: Path) -> None:
    stop(data_dir)
    _line("redis", "stopped")


class _RedisWatch:
    """Starts the embedded Redis again on its files if it died."""

    def __init__(self, settings: Settings) -> None:
        self._data_dir = settings.redis.data_dir
        self._next_at = 0.0

    def __call__(self) -> None:
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + 1.0
        try:
            if ensure_running(self._data_dir).started_by_us:
                _line("redis", "had ended; started again on its files")
        except OperationsMustAct as error:
            _line("redis", error.message)


def _nothing() -> None:
    """Do nothing: a Redis that is not embedded is not ours to look after."""


def _check(settings: Settings) -> None:
    for warning in settings.warnings:
        mention(f"warning: {warning}")
    findings = check_triggers(settings, datetime.now(UTC))
    errors = [f"triggers.{f.trigger}: {f.message}" for f in findings if f.severity == "error"]
    if errors:
        raise ConfigurationInvalid("\n".join(errors))


def _line(name: str, text: str) -> None:
    """Print a line after the name of its process; lines of several threads don't mix."""
    colour = _COLOURS[sum(map(ord, name)) % len(_COLOURS)]
    prefix = f"\x1b[{colour}m{name:<7}\x1b[0m" if wants_colour() else f"{name:<7}"
    with _LOCK:
        sys.stdout.write(f"{prefix} | {printable(text)}\n")
        sys.stdout.flush()

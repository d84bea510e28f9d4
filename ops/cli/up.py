"""`segrelay up`: Redis, worker and what else is configured, in one terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import typer

from ops.cli.console import note
from ops.embedded.lifecycle import ensure_running, stop
from ops.supervisor import Supervisor, own_command
from worker.checks.triggers import check_triggers
from worker.contract.connection import wait_ready
from worker.contract.printable import printable
from worker.contract.settings import Settings, load_settings
from worker.contract.settings_fields import EMBEDDED
from worker.errors import ConfigurationInvalid, OperationsMustAct

_COLOURS = ("36", "33", "35", "32", "34")
_LOCK = threading.Lock()


def up() -> None:
    """Run everything; Ctrl-C ends it cleanly."""
    settings = load_settings()
    _check(settings)
    supervisor = Supervisor(_line)
    with ExitStack() as ending:
        look = _redis(settings, supervisor, ending)
        ending.enter_context(supervisor)
        supervisor.start("worker", own_command("worker"))
        if settings.producer.webhook:
            supervisor.start("serve", own_command("serve"))
        if settings.flower:
            supervisor.start("flower", own_command("flower"))
        code = supervisor.run(look)
        _line("up", "stopping")
    raise typer.Exit(code)


def _redis(settings: Settings, supervisor: Supervisor, ending: ExitStack) -> Callable[[], None]:
    """See that Redis can be used; returns what looks after it from then on."""
    if settings.redis.url != EMBEDDED:
        for warning in wait_ready(settings.redis.url):
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


def _stop_redis(data_dir: Path) -> None:
    stop(data_dir)
    _line("redis", "stopped")


class _RedisWatch:
    """Starts the embedded Redis again if it died; its files survive."""

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
    """Look after nothing."""


def _check(settings: Settings) -> None:
    for warning in settings.warnings:
        note(f"warning: {warning}")
    findings = check_triggers(settings, datetime.now(UTC))
    errors = [f"triggers.{f.trigger}: {f.message}" for f in findings if f.severity == "error"]
    if errors:
        raise ConfigurationInvalid("\n".join(errors))


def _line(name: str, text: str) -> None:
    """Print a line with its process' name; one at a time."""
    colour = _COLOURS[sum(map(ord, name)) % len(_COLOURS)]
    prefix = f"\x1b[{colour}m{name:<7}\x1b[0m" if sys.stdout.isatty() else f"{name:<7}"
    with _LOCK:
        sys.stdout.write(f"{prefix} | {printable(text)}\n")
        sys.stdout.flush()

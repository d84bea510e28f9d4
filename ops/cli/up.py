"""`segrelay up`: Redis, worker and what else is configured, in one terminal."""

from __future__ import annotations

import sys
import threading
import time

import typer

from ops.cli.console import note
from ops.embedded import ensure_running, stop
from ops.supervisor import Supervisor, own_command
from worker.contract.connection import wait_ready
from worker.contract.settings import Settings, load_settings
from worker.errors import ConfigurationInvalid, OperationsMustAct
from worker.trigger_check import check_triggers

_COLOURS = ("36", "33", "35", "32", "34")
_LOCK = threading.Lock()


def up() -> None:
    """Run everything; Ctrl-C ends it cleanly."""
    settings = load_settings()
    _check(settings)
    redis_is_ours = False
    if settings.redis.url == "embedded":
        redis_is_ours = ensure_running(settings.redis.data_dir).started_by_us
        _line("redis", "ready" if redis_is_ours else "was running already")
    else:
        for warning in wait_ready(settings.redis.url):
            _line("redis", warning)
    try:
        with Supervisor(_line) as supervisor:
            supervisor.start("worker", own_command("worker"))
            if settings.flower:
                supervisor.start("flower", own_command("flower"))
            code = supervisor.run(_RedisWatch(settings) if redis_is_ours else _nothing)
            _line("up", "stopping")
    finally:
        if redis_is_ours:
            stop(settings.redis.data_dir)
            _line("redis", "stopped")
    raise typer.Exit(code)


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
    findings = check_triggers(settings)
    errors = [f"triggers.{f.trigger}: {f.message}" for f in findings if f.severity == "error"]
    if errors:
        raise ConfigurationInvalid("\n".join(errors))


def _line(name: str, text: str) -> None:
    """Print a line with its process' name; one at a time."""
    colour = _COLOURS[sum(map(ord, name)) % len(_COLOURS)]
    prefix = f"\x1b[{colour}m{name:<7}\x1b[0m" if sys.stdout.isatty() else f"{name:<7}"
    with _LOCK:
        sys.stdout.write(f"{prefix} | {text}\n")
        sys.stdout.flush()

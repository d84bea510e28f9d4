"""`segrelay console`: the console for browsers, and `console password` for those who sign in."""

from __future__ import annotations

import logging
import sys
from contextlib import closing
from typing import Annotated, Final

import structlog
import typer

from segrelay.ops.console.acting import ask, started
from segrelay.ops.console.acts import StartedCommands
from segrelay.ops.console.app import Console, Guard, PageRoute, build_app
from segrelay.ops.console.look import Look
from segrelay.ops.console.pages import (
    audit,
    job,
    jobs,
    now,
    quarantine,
    record,
    status,
    sync,
    tap,
    waiting,
)
from segrelay.ops.console.people import dead_letter, dead_letters, people, person
from segrelay.ops.console.rights import (
    LONGEST_PASSWORD,
    SHORTEST_PASSWORD,
    Rights,
    hash_password,
)
from segrelay.ops.state.opened import load_for_redis
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.serving import LogFormat, end_with_parent, listening_at, use_log_format
from segrelay.producer.webhook.server import serve
from segrelay.worker import logs
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import ConsoleSettings
from segrelay.worker.errors import ConfigurationInvalid, UsageWrong

LOG: Final = structlog.get_logger()
_TIMEOUT_SECONDS: Final = 3.0

PAGES: Final = (
    PageRoute("/", now, "Now", "n"),
    PageRoute("/people", people, "A person", "p", takes_posts=True),
    PageRoute("/people/{digest}", person, takes_posts=True),
    PageRoute("/letters", dead_letters, "Dead letters", "d"),
    PageRoute("/letters/{id}", dead_letter, takes_posts=True),
    PageRoute("/quarantine", quarantine, "Quarantine", "q"),
    PageRoute("/quarantine/{id}", record, takes_posts=True),
    PageRoute("/waiting", waiting, "Waiting", "w"),
    PageRoute("/jobs", jobs, "Jobs and syncs", "j"),
    PageRoute("/jobs/{name}", job),
    PageRoute("/syncs/{name}", sync),
    PageRoute("/status", status, "Status", "s"),
    PageRoute("/tap", tap, "Tap", "t"),
    PageRoute("/audit", audit, "Audit", "a"),
    PageRoute("/act", ask, takes_posts=True),
    PageRoute("/acts/{key}", started),
)
MENU: Final = tuple(page for page in PAGES if page.title)

app = typer.Typer(invoke_without_command=True)


@app.callback()
def console(
    context: typer.Context,
    *,
    listen: Annotated[
        str, typer.Option(help="Listen here instead of at console.listen.", metavar="HOST:PORT")
    ] = "",
    log_format: LogFormat = None,
) -> None:
    """Serve web pages that show problems, deliveries, people and jobs, with buttons to act.

    Without [console.users] it only shows, masks personal data, and serves this machine only.
    """
    if context.invoked_subcommand:
        return
    use_log_format(log_format)
    end_with_parent()
    settings = load_for_redis(stays=True)
    section = listening_at(settings.console or ConsoleSettings(), listen)
    if section.exposed:
        raise ConfigurationInvalid(
            f"{section.listen}: {section.exposed}. Add [console.users.NAME] to"
            f" {settings.source.name}; `segrelay console password` makes the hash."
        )
    logs.configure(logging.INFO)
    _serve(settings, section)


def _serve(settings: Settings, section: ConsoleSettings) -> None:
    rights = Rights(section)
    with closing(connect(resolve_url(settings.redis), timeout_seconds=_TIMEOUT_SECONDS)) as client:
        commands = StartedCommands()
        look = Look(client, settings, commands.changed_at)
        shared = Console(look, rights, MENU, commands)
        try:
            serve(
                Guard(build_app(shared, PAGES), rights),
                section.host,
                section.port,
                on_ready=lambda url: LOG.info(
                    "console.ready", message=f"the console is at {section.public_url or url}/"
                ),
                hint="change console.listen",
            )
        finally:
            commands.end()


@app.command()
def password() -> Result:
    """Ask for a password, or read it from standard input, and print its hash.

    The hash goes into a variable or a file, which `password` of [console.users.NAME] names.
    """
    if sys.stdin.isatty():
        text = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = sys.stdin.readline().rstrip("\n")
    if not SHORTEST_PASSWORD <= len(text) <= LONGEST_PASSWORD:
        raise UsageWrong(
            f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD:,} characters; this one has"
            f" {len(text):,}."
        )
    hashed = hash_password(text)
    note = 'Name it in the configuration, e.g. password = "env:SEGRELAY_CONSOLE_ANN".'
    return Result({"hash": hashed}, hashed, notes=[note])

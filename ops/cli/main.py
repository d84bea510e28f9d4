"""The command line: one table of commands, each loaded when it is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer

from ops.cli.console import run_guarded
from ops.cli.lazy import Lazy, LazyGroup

COMMANDS: Final[Mapping[str, Lazy]] = {
    "init": Lazy("ops.cli.init:init", "Write a first configuration into a folder.", "Begin"),
    "config": Lazy("ops.cli.config:app", "Check or show the configuration.", "Begin"),
    "template": Lazy("ops.cli.template:app", "Check or render templates.", "Begin"),
    "demo": Lazy("ops.cli.demo:demo", "Show the main job on invented people.", "Begin"),
    "up": Lazy("ops.cli.up:up", "Run Redis, worker and what else is configured.", "Run"),
    "worker": Lazy(
        "ops.cli.worker:worker", "Run a worker; takes Celery's options.", "Run", passes_options=True
    ),
    "flower": Lazy("ops.cli.flower:flower", "Run Flower, to watch the workers.", "Run"),
    "redis": Lazy("ops.cli.redis:app", "Start, find or stop the embedded Redis.", "Run"),
    "send": Lazy("ops.cli.send:send", "Accept the payloads of a file.", "Feed"),
    "quarantine": Lazy("ops.cli.quarantine:app", "See what could not be placed.", "Feed"),
    "audience": Lazy("ops.cli.audience:app", "Say which slug an id stands for.", "Feed"),
    "pause": Lazy("ops.cli.pause:pause", "Pause a destination or a trigger.", "Operate"),
    "resume": Lazy("ops.cli.pause:resume", "Resume it, with a probe first.", "Operate"),
    "status": Lazy("ops.cli.status:status", "Show how everything stands.", "Operate"),
    "dlq": Lazy("ops.cli.dlq:app", "See, replay or discard dead letters.", "Operate"),
    "why": Lazy("ops.cli.why:why", "Tell all that is known of a person.", "Operate"),
    "try": Lazy("ops.cli.try_:try_", "Try one person's event; send it if wanted.", "Operate"),
    "verify": Lazy("ops.cli.verify:verify", "Compare Insider with the ledger.", "Operate"),
    "discard": Lazy("ops.cli.discard:discard", "Take back what waits.", "Operate"),
    "trigger": Lazy("ops.cli.trigger:app", "Move what a lost trigger left.", "Operate"),
    "sandbox": Lazy("ops.cli.sandbox:sandbox", "Run a stand-in for Insider.", "Begin"),
}


class _Commands(LazyGroup):
    table = COMMANDS


app = typer.Typer(
    cls=_Commands,
    name="segrelay",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"segrelay {version('segrelay')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    config: Annotated[
        Path | None,
        typer.Option(help="The configuration, in the place of $SEGRELAY_CONFIG.", metavar="FILE"),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="And exit.")
    ] = False,
) -> None:
    """Carry audience entrances and exits from Lytics to Insider."""
    if config is not None:
        os.environ["SEGRELAY_CONFIG"] = str(config.absolute())


def run() -> None:
    """Run the command line; the entry point of the console command `segrelay`."""
    run_guarded(app)


if __name__ == "__main__":
    run()

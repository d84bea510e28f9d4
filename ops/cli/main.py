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

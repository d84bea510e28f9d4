"""Completion of the names of commands."""

import subprocess
import sys

import pytest
import typer

from segrelay.ops.terminal.frame import LazyCommand, LazyGroup

TABLE = {
    "start": LazyCommand("no.such.module:start", "Start it.", "Run"),
    "stop": LazyCommand("no.such.module:stop", "Stop it.", "Run"),
    "help": LazyCommand("no.such.module:help", "Help.", "Run"),
}


class Commands(LazyGroup):
    """Commands of a module that is not there: to load one fails."""

    table = TABLE


def test_the_name_of_a_command_is_completed_without_loading_any_command() -> None:
    group = Commands(name="app")
    context = typer.Context(group, info_name="app")

    found = group.shell_complete(context, "st")

    assert [(item.value, item.help) for item in found] == [
        ("start", "Start it."),
        ("stop", "Stop it."),
    ]


FOR_COMMANDS = ("celery", "httpx", "pydantic", "redis", "rich", "structlog")
FOR_RENDERING = (
    "celery",
    "httpx",
    "phonenumbers",
    "segrelay.jsonnet.engines",
    "segrelay.worker.batch",
)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("main", FOR_COMMANDS),
        ("entry; segrelay.ops.entry.run()", ("typer", *FOR_COMMANDS)),
        ("backfill.commands", FOR_RENDERING),
        ("send", FOR_RENDERING),
        ("status.command", FOR_RENDERING),
    ],
)
def test_the_help_and_commands_that_render_nothing_load_nothing_that_others_need(
    module: str, heavy: tuple[str, ...]
) -> None:
    script = (
        "import sys; sys.argv = ['segrelay', 'status', '-h']\n"
        f"import segrelay.ops.{module}; print([one for one in {heavy} if one in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"

"""Completion of the names of commands."""

import subprocess
import sys

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
LOOKS = f"""
import sys, segrelay.ops.main
print([one for one in {FOR_COMMANDS} if one in sys.modules])
import segrelay.ops.backfill.commands, segrelay.ops.send, segrelay.ops.status.command
print([one for one in {FOR_RENDERING} if one in sys.modules])
"""


def test_the_help_and_commands_that_render_nothing_load_nothing_that_others_need() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOKS], capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n") == ["[]", "[]", ""]

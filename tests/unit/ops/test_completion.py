"""Completion of the names of commands."""

import subprocess
import sys

import pytest
import typer

from segrelay.ops.terminal.lazy import LazyCommand, LazyGroup

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


def test_the_help_loads_no_library_that_only_commands_need() -> None:
    heavy = ("celery", "httpx", "pydantic", "redis", "rich", "structlog")
    script = f"import sys, segrelay.ops.main; print([one for one in {heavy} if one in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["backfill.commands", "send.command", "status.command"])
def test_a_command_that_renders_nothing_loads_nothing_for_it(module: str) -> None:
    heavy = ("celery", "httpx", "phonenumbers", "segrelay.jsonnet.engines", "segrelay.worker.batch")
    script = (
        f"import sys, segrelay.ops.{module}; print([one for one in {heavy} if one in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"

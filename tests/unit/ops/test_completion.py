"""What is loaded for the help, for the completion of names, and for commands."""

import subprocess
import sys

FOR_COMMANDS = ("celery", "httpx", "pydantic", "redis", "rich", "structlog")
FOR_RENDERING = (
    "celery",
    "httpx",
    "phonenumbers",
    "segrelay.jsonnet.engines",
    "segrelay.worker.batch",
)
LOOKS = f"""
import sys, typer, segrelay.ops.main
group = typer.main.get_command(segrelay.ops.main.app)
print([(one.value, one.help) for one in group.shell_complete(typer.Context(group), "st")])
print([one for one in {FOR_COMMANDS} if one in sys.modules])
import segrelay.ops.backfill.commands, segrelay.ops.send, segrelay.ops.status.command
print([one for one in {FOR_RENDERING} if one in sys.modules])
"""


def test_completion_and_commands_that_render_nothing_load_nothing_that_others_need() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOKS], capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n") == ["[('status', 'See counts and problems')]", "[]", "[]", ""]

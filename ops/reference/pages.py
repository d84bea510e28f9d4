"""The generated pages of `docs/`, among them that of all commands with their help texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import typer

from ops.main import app
from ops.reference.configuration import configuration_page
from ops.templates.library import library_page

_WIDTH: Final = 96
_OPENING: Final = """\
# Commands

This page is written by `make docs` from the command line itself: it shows what
`segrelay COMMAND --help` prints.

Commands that report facts take `--json`: standard output is then exactly one JSON document, and
messages go to standard error. Exit codes: 0 for success, 1 for failed work, 2 for wrong usage or
configuration, 130 after Ctrl-C. `status --check` also uses 3, if Redis can't be reached.
"""


def commands_page() -> str:
    """Return the text of `docs/commands.md`."""
    root = typer.main.get_command(app)
    settings = {**root.context_settings, "info_name": "segrelay", "terminal_width": _WIDTH}
    context = root.context_class(root, **settings)
    return "\n".join((_OPENING, *_parts(root, context, depth=1)))


def _parts(command: Any, context: Any, depth: int) -> Iterator[str]:
    """Yield a section for a command and for each of its subcommands."""
    yield f"{'#' * (depth + 1)} `{context.command_path}`\n\n```\n{command.get_help(context)}\n```\n"
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        inner = command.get_command(context, name)
        below = type(context)(inner, parent=context, info_name=name, terminal_width=_WIDTH)
        yield from _parts(inner, below, depth + 1)


FOLDER: Final = Path(__file__).parents[2] / "docs"


def pages() -> Mapping[str, str]:
    """Return the texts of all pages by file name."""
    return {
        "configuration.md": configuration_page(),
        "commands.md": commands_page(),
        "library.md": library_page(),
    }

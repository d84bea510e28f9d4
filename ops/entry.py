"""The entry point of `segrelay`.

A help is read from a page, so that it loads nothing. Ctrl-C while Python still loads prints
nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_INTERRUPTED: Final = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells have it."""
_PAGE: Final = Path(__file__).parents[1] / "docs" / "commands.md"
_WIDTH: Final = 80
"""The columns for which that page is written."""


def run() -> None:
    """Load the command line and run it."""
    try:
        with suppress(OSError, UnicodeError):  # then the command line prints it, or says why not
            if text := written_help(sys.argv[1:]):
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()
                return
        from segrelay.ops.main import run as run_commands  # noqa: PLC0415 - loading is what may end
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    run_commands()


def written_help(words: Sequence[str]) -> str:
    """Return the help that is asked for as the page of all commands has it, which loads nothing.

    It is "" where the words ask for something else, and on a narrower screen.

    Raises:
        OSError: The page can't be read.
    """
    if words[-1:] not in (["-h"], ["--help"]) or shutil.get_terminal_size().columns < _WIDTH:
        return ""
    head = f"# `{' '.join(('segrelay', *words[:-1]))}`\n\n```\n"
    return _PAGE.read_text("utf-8").partition(head)[2].partition("\n```\n")[0]


if __name__ == "__main__":
    # The console and assistants give a command's words as a JSON list on standard input: every
    # user of a machine can read the arguments of its processes, and a person's address may be one.
    sys.argv[1:] = json.load(sys.stdin)
    run()

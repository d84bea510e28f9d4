"""The entry point of `segrelay`; Ctrl-C while Python still loads prints nothing."""

from __future__ import annotations

import json
import sys
from typing import Final

_INTERRUPTED: Final = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


def run() -> None:
    """Load the command line and run it."""
    try:
        from segrelay.ops.main import run as run_commands  # noqa: PLC0415 - loading is what may end
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    run_commands()


if __name__ == "__main__":
    # The console and assistants give a command's words as a JSON list on standard input: every
    # user of a machine can read the arguments of its processes, and a person's address may be one.
    sys.argv[1:] = json.load(sys.stdin)
    run()

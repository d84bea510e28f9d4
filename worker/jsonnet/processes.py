"""The command lines with which the engine starts its own modules as processes."""

from __future__ import annotations

import sys


def own_command(name: str) -> list[str]:
    """Return the command line that runs a module of the engine with this Python.

    `-P` keeps the current folder out of Python's search path: another folder named `worker` there
    would be executed in the place of ours.
    """
    return [sys.executable, "-P", "-m", name]

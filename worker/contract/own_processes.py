"""Starting our own modules as processes."""

from __future__ import annotations

import sys


def own_module(name: str, *arguments: str) -> list[str]:
    """Return the command line that runs one of our modules, by this very interpreter.

    `-P` keeps the current folder out of Python's search path: a folder `worker`, `ops` or
    `producer` of somebody else would be executed in the place of ours.
    """
    return [sys.executable, "-P", "-m", name, *arguments]

"""Questions before something that can't be undone, and progress while it is done."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import typer

from ops.terminal.console import progress
from worker.errors import UsageWrong


def confirmed(question: str, *, yes: bool) -> None:
    """Ask, unless `--yes` was given.

    Raises:
        UsageWrong: Nobody is there to be asked.
        Abort: The answer is no.
    """
    if yes:
        return
    if not is_terminal():
        raise UsageWrong(f"{question} There is no terminal on which to ask; --yes agrees.")
    typer.confirm(question, abort=True, err=True)


def is_terminal() -> bool:
    """Say whether stdin is a terminal."""
    return sys.stdin.isatty()


def counted(label: str, steps: Iterable[int], total: int) -> int:
    """Run the steps, show their progress, and return their sum."""
    done = 0
    if not total:
        return done
    with progress(label, total) as shown:
        for step in steps:
            done += step
            shown.advance(step)
    return done

"""Processes that share the work of a command, forked from one that has loaded their module.

So a module is loaded once, while the command does other work, and its memory is shared.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

STARTED_FROM: Final = multiprocessing.get_context("forkserver")
"""The way to start processes."""


def prepare_processes(module: str) -> None:
    """Start the process that others are forked from; it loads a module, by its full name."""
    STARTED_FROM.set_forkserver_preload([module])
    with deaf_to_interrupts():
        forkserver.ensure_running()


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Block Ctrl-C; processes that are started meanwhile inherit that from the beginning."""
    resource_tracker.ensure_running()  # it would lift the block if it began within it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def started(
    target: Callable[..., None], *arguments: Any, end_seconds: float
) -> Iterator[tuple[BaseProcess, Connection]]:
    """Start a process at the other end of a connection, and end it behind the `with` block.

    Args:
        target: The function that the process runs. It gets the connection and the arguments, and
            ends when the connection does.
        arguments: The further arguments.
        end_seconds: The seconds within which it ends by itself; then it is killed.
    """
    ours, theirs = STARTED_FROM.Pipe()
    process = STARTED_FROM.Process(target=target, args=(theirs, *arguments), daemon=True)
    with deaf_to_interrupts():
        process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        ours.close()
        process.join(end_seconds)
        if process.is_alive():
            process.kill()
            process.join()

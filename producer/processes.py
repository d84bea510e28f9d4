"""Processes that share the work of a command, forked from one that has loaded their module.

So a module is loaded once, while the command does other work, and its memory is shared.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Final

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

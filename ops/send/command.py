"""`segrelay send`: put the payloads of a file into Redis."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Final

import typer

from segrelay.ops.terminal.options import SendOptions
from segrelay.worker.contract.own_processes import processors

STANDARD_INPUT: Final = "-"
_LARGE_BYTES: Final = 128_000_000
"""The size from which on a file is read by a process of its own. To start one takes half a second
of a processor, and where none is idle, that is lost."""


def send(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-", help="A file of JSON lines or one JSON document; - reads a pipe."
        ),
    ],
    *,
    options: SendOptions,
) -> None:
    """Put the payloads of a file into Redis, from where the workers deliver them.

    Exits with 1 if nothing was accepted, if the file is cut off, if events are older than what the
    ledger remembers, or if --timeout has passed; with --wait also if anything was refused or died.
    """
    beside = _is_worth_a_process(source)
    if beside:
        # What it needs takes as long to load as what follows here: both do it at once.
        from segrelay.producer.processes import prepare_processes  # noqa: PLC0415 - see above

        prepare_processes("segrelay.ops.send.drafting")
    from segrelay.ops.send.sending import run  # noqa: PLC0415 - see above

    run(source, options, beside=beside)


def _is_worth_a_process(source: str) -> bool:
    """Say whether a source is a file so large that a process of its own should read it."""
    try:
        found = Path(source).stat()
    except (OSError, ValueError):
        return False
    is_large = stat.S_ISREG(found.st_mode) and found.st_size >= _LARGE_BYTES
    return is_large and source != STANDARD_INPUT and processors() > 1

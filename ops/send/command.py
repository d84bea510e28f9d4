"""`segrelay send`: put the payloads of a file into Redis."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Final

import typer

from segrelay.ops.terminal.options import DryRun, Json, OlderThanLedger
from segrelay.worker.contract.own_processes import processors
from segrelay.worker.contract.words import LIVE

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
    lane: Annotated[str, typer.Option(help="The lane: live or backfill.")] = LIVE,
    job: Annotated[
        str,
        typer.Option(
            help="Name of a job, which has a lane of its own of the backfill kind. Sending the "
            "same file again goes on where it was interrupted."
        ),
    ] = "",
    hooks: Annotated[
        bool | None,
        typer.Option(
            "--hooks/--no-hooks",
            help="Whether Insider may start journeys. By default it may for the live lane, and "
            "not for backfill and jobs. A trigger's skip_hook overrules it.",
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until all that was sent, or all of the job, is settled."),
    ] = False,
    timeout: Annotated[
        str,
        typer.Option(
            help="Give up this long after the start, whatever is being waited for: Redis, room in "
            "it, or (with --wait) deliveries. For example 90s or 15m.",
            metavar="DURATION",
        ),
    ] = "",
    older_than_ledger: OlderThanLedger = False,
    as_json: Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any event was refused.")
    ] = False,
) -> None:
    """Put the payloads of a file into Redis, from where the workers deliver them.

    Exits with 1 if nothing was accepted, if the file is cut off, if events are older than what the
    ledger remembers, or if --timeout has passed.
    """
    beside = _is_worth_a_process(source)
    if beside:
        # What it needs takes as long to load as what follows here: both do it at once.
        from segrelay.producer.processes import prepare_processes  # noqa: PLC0415 - see above

        prepare_processes("segrelay.ops.send.drafting")
    from segrelay.ops.send.run import Order, run  # noqa: PLC0415 - see above

    run(
        Order(
            source,
            lane,
            job,
            hooks,
            timeout,
            dry_run=dry_run,
            wait=wait,
            older_than_ledger=older_than_ledger,
            as_json=as_json,
            strict=strict,
            beside=beside,
        )
    )


def _is_worth_a_process(source: str) -> bool:
    """Say whether a source is a file so large that a process of its own should read it."""
    try:
        found = Path(source).stat()
    except (OSError, ValueError):
        return False
    is_large = stat.S_ISREG(found.st_mode) and found.st_size >= _LARGE_BYTES
    return is_large and source != STANDARD_INPUT and processors() > 1

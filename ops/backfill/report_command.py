"""`segrelay backfill report`: what became of a job, as JSON, as a page, and the rows to mend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops.backfill.page import page_of
from ops.backfill.report import JobReport, read_report, write_bad_rows
from ops.state.opened import opened
from ops.terminal.console import mention, print_json
from ops.terminal.private_files import private_file
from worker.errors import UsageWrong


def report(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's name.")],
    *,
    html: Annotated[Path | None, typer.Option(help="Write a page to read.", metavar="FILE")] = None,
    bad_rows: Annotated[
        Path | None,
        typer.Option(help="Write the rows that could not be placed, to be mended.", metavar="FILE"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, also beside other files.")
    ] = False,
) -> None:
    """Report a job: rows, outcomes by reason and over time, rows that could not be placed.

    Without a file to write it prints the report as JSON. The file of --bad-rows has the rows as
    they came, which are people's data: mend it, start a backfill of it, and delete it. Only you may
    read what is written (mode 0600).
    """
    with opened() as (settings, client):
        found = read_report(client, settings, job)
    try:
        if html is not None:
            with private_file(html) as file:
                file.write(page_of(found).encode())
            mention(f"The page is {html}.")
        if bad_rows is not None:
            _write(found, bad_rows)
    except OSError as error:
        raise UsageWrong(f"{error.filename} can't be written: {error.strerror}.") from error
    if as_json or (html is None and bad_rows is None):
        print_json(found.document())


def _write(found: JobReport, path: Path) -> None:
    written, lost = write_bad_rows(found.bad_rows, path)
    mention(f"{written:,} rows are in {path}: mend them, then `segrelay backfill start {path} …`.")
    if any(row.text and not row.text.lstrip().startswith(("{", "[")) for row in found.bad_rows):
        mention(
            "Rows that are not JSON stand there as they came. Those of a CSV file need a file of "
            "their own, with the header above them or with --columns."
        )
    missing = found.view.job.tally.refused - written
    if lost:
        mention(f"{lost:,} rows were too large to be kept; the report names their lines.")
    if missing > lost:
        mention(f"{missing - lost:,} more were refused than are kept, or share a row.")

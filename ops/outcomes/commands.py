"""`segrelay outcomes`: export rows about ends of deliveries, and show how far they are written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Annotated, Any, BinaryIO, Final

import typer

from segrelay.ops.outcomes.files import Format, format_of, row_file
from segrelay.ops.outcomes.reading import (
    complete_since_ms,
    first_ms,
    read_outcomes,
    read_recorded,
    rows_of,
    with_positions,
)
from segrelay.ops.state.acts import EXPORTED_FILE, Acts, Doing, Reads, perform
from segrelay.ops.terminal.console import mention, private_file, progress
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.moments import parse_moment_ms, shown_ms
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import OutcomesSettings
from segrelay.worker.errors import UsageWrong

app = typer.Typer(help="Read how deliveries ended, as rows for a warehouse.")

_STANDARD_OUTPUT: Final = "-"
_OFF: Final = (
    "Outcomes are not recorded: add the table [outcomes] to {}, and restart the workers. What ended"
    " before that is not known one by one."
)


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """The time that an export covers."""

    since: Annotated[
        str, typer.Option(help="Since 2026-11-24T10:00:00Z, or 2h for two hours ago.")
    ] = ""
    until: Annotated[str, typer.Option(help="Until then, without that moment itself.")] = ""

    def chosen(self, now: int) -> tuple[int, int]:
        """Return the begin and the end in ms.

        Raises:
            UsageWrong: The end is not behind the begin.
        """
        since_ms = parse_moment_ms(self.since, "--since", now_ms=now)
        until_ms = min(parse_moment_ms(self.until, "--until", now_ms=now) or now, now)
        if since_ms >= until_ms:
            raise UsageWrong("--until has to be later than --since, and both before now.")
        return since_ms, until_ms


def _wanted(settings: Settings) -> OutcomesSettings:
    if settings.outcomes is None:
        raise UsageWrong(_OFF.format(settings.source.name))
    return settings.outcomes


@app.command()
def export(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-",
            help="The file to write, .ndjson or .parquet; it must not exist. - writes NDJSON to"
            " standard output.",
        ),
    ],
    *,
    options: TimeOptions,
    relay: Acts,
) -> None:
    """Write the ends of deliveries that Redis keeps to a file, each once.

    A row has `counts` 1. A dead letter that was replayed or discarded has a row more, with -1: the
    sums of `counts` by outcome are the counts of `segrelay status`. The file appears when it is
    complete. Exits with 1 if rows of that time are not kept any more.
    """
    client, settings = relay.client, relay.settings
    wanted = _wanted(settings)
    since_ms, until_ms = options.chosen(now_ms(client))
    kind: Format = "ndjson" if file == _STANDARD_OUTPUT else format_of(file)
    where = "" if file == _STANDARD_OUTPUT else str(Path(file).resolve())

    def written(doing: Doing) -> int:
        with _appearing(file) as stream:
            doing.count = _export(client, settings, stream, kind, wanted.fields, since_ms, until_ms)
        return doing.count

    act = relay.act(since=options.since, until=options.until, **{EXPORTED_FILE: where})
    count = perform(client, act, written)
    mention(f"{plural(count, 'row')} written")
    complete_ms = complete_since_ms(read_recorded(client, settings))
    if since_ms and complete_ms > since_ms:
        mention(
            f"Not all of that time is kept: rows from before {shown_ms(complete_ms)} are gone"
            " (outcomes.keep, outcomes.max_bytes)."
        )
        raise typer.Exit(1)


def _export(  # noqa: PLR0917 - one call
    client: Redis,
    settings: Settings,
    stream: BinaryIO,
    kind: Format,
    fields: tuple[str, ...],
    since_ms: int,
    until_ms: int,
) -> int:
    """Write the rows of a time, and return their number."""
    found = read_recorded(client, settings)
    ranges = [(one.partition, str(since_ms), str(until_ms - 1)) for one in found]
    writer, count = row_file(kind, stream, fields), 0
    with progress("exported") as shown:
        for rows in rows_of(client, ranges):
            writer.write(rows)
            count += len(rows)
            shown.advance(len(rows))
    writer.close()
    return count


@contextmanager
def _appearing(file: str) -> Iterator[BinaryIO]:
    """Open a new file that only its owner may read, and that appears when all of it is written."""
    if file == _STANDARD_OUTPUT:
        with TemporaryFile() as whole_output:
            yield whole_output
            whole_output.seek(0)
            copyfileobj(whole_output, sys.stdout.buffer)
        return
    whole = Path(file)
    if whole.exists():
        raise UsageWrong(f"{file}: is there already; name a new file.")
    part = whole.with_name(f".{whole.name}.part")
    try:
        with private_file(part) as stream:
            yield stream
        part.rename(whole)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


@app.command()
def status(*, relay: Reads) -> Result:
    """Show how far outcomes are written to files, what Redis keeps, and what was dropped."""
    wanted = _wanted(relay.settings)
    found = read_outcomes(relay.client, relay.settings)
    writing = found.writing
    recorded = with_positions(read_recorded(relay.client, relay.settings), writing)
    waiting_ms = first_ms(relay.client, recorded)
    document: dict[str, Any] = {
        "folder": wanted.folder,
        "files": writing.files,
        "rows_in_files": writing.rows,
        "last_file_at": _moment(writing.last_ms),
        "waiting_rows": found.unwritten_rows if wanted.folder else 0,
        "waiting_since": _moment(waiting_ms) if wanted.folder else None,
        "kept_rows": found.kept_rows,
        "kept_bytes": found.kept_size,
        "complete_since": _moment(found.since_ms),
        "fullest_share": round(found.fullest, 3),
        "dropped_rows": found.dropped,
        "dropped_at": _moment(found.dropped_ms),
        "problem": writing.problem,
    }
    kept = f"{plural(found.kept_rows, 'row')}, {found.kept_size:,} bytes"
    lines = [
        f"kept in Redis: {kept}; the fullest partition uses {found.fullest:.0%} of its room",
    ]
    if found.since_ms:
        lines.append(f"nothing is missing since {shown_ms(found.since_ms)}")
    if wanted.folder:
        lines += [
            f"written: {plural(writing.rows, 'row')} in {plural(writing.files, 'file')}",
            f"folder: {wanted.folder}",
            f"not yet in a file: {plural(found.unwritten_rows, 'row')}",
        ]
    if found.dropped:
        lines.append(
            f"dropped for want of room: {plural(found.dropped, 'row')}, at last at"
            f" {shown_ms(found.dropped_ms)}"
        )
    if writing.problem:
        lines.append(f"problem: {writing.problem}")
    return Result(document, *lines, exit_code=1 if writing.problem else 0)


def _moment(at_ms: int) -> str | None:
    return shown_ms(at_ms) if at_ms else None

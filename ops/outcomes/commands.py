"""`segrelay outcomes`: export the rows of the outcome log, as NDJSON or Parquet.

Each file is whole, or not there. `segrelay tap` shows the rows as they come.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal, Self

import orjson
import typer

from segrelay.ops.outcomes.reading import (
    Cursor,
    LogFollower,
    Range,
    complete_since_ms,
    last_ids,
    rows_of,
)
from segrelay.ops.state.opened import EXPORTED_FILE, Acts, Doing, Reads, perform
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.person import is_digest, person_named
from segrelay.ops.terminal.console import is_all_written, mention, private_file, progress, say
from segrelay.ops.terminal.moments import parse_moment_ms, parse_seconds, shown_ms, shown_us
from segrelay.ops.terminal.options import DestinationName, configured
from segrelay.producer.sources.remote import Bucket
from segrelay.producer.steps import StepStore
from segrelay.worker.contract.keys import PartitionKeys, outcome_cursor
from segrelay.worker.contract.outcomes import RETRY, OutcomeRow
from segrelay.worker.contract.printable import json_text, plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.urls import BUCKETS
from segrelay.worker.contract.words import NAME_PATTERN
from segrelay.worker.errors import LeaseLost, OperationsMustAct, RedisUnavailable, UsageWrong

Format = Literal["ndjson", "parquet"]
SUFFIXES: Final[dict[str, Format]] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
_COLUMNS: Final = (
    "id", "time", "person", "audience", "direction", "event_time", "destination", "trigger", "lane",
    "template_version", "outcome", "reason", "status", "attempts", "message", "counts",
)  # fmt: skip
"""The names of the columns, in the order of the fields of `OutcomeRow`."""
_GROUP_ROWS: Final = 50_000
"""The rows of a row group of Parquet; as many are held in memory."""


def format_of(name: str) -> Format:
    """Return the format that a file's name tells.

    Raises:
        UsageWrong: It tells none.
    """
    found = SUFFIXES.get(Path(name).suffix.lower())
    if found is None:
        raise UsageWrong(f"{name}: name it .ndjson or .parquet, which says what is written.")
    return found


def write_rows(kind: Format, stream: BinaryIO, rows: Iterable[OutcomeRow]) -> None:
    """Write rows to a stream, which stays open.

    Raises:
        OperationsMustAct: It needs an extra that is not installed.
    """
    if kind == "parquet":
        _write_parquet(stream, rows)
        return
    stream.writelines(
        orjson.dumps(document_of(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows
    )
    stream.flush()


def document_of(row: OutcomeRow) -> dict[str, Any]:
    """Return a row as a document, with null for the fields that it does not have."""
    document = dict(zip(_COLUMNS, (value or None for value in row), strict=True))
    return document | {
        "time": shown_ms(row.time_ms),
        "event_time": shown_us(row.event_time_us) if row.event_time_us else None,
        "attempts": row.attempts,
        "counts": row.counts,
    }


def _write_parquet(stream: BinaryIO, rows: Iterable[OutcomeRow]) -> None:
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise OperationsMustAct(
            "Parquet needs an extra that is not installed: pip install 'segrelay[parquet]'."
        ) from error
    text, code = arrow.string(), arrow.dictionary(arrow.int32(), arrow.string())
    kinds = dict.fromkeys(_COLUMNS, code) | {
        "id": text,
        "time": arrow.timestamp("ms", tz="UTC"),
        "person": text,
        "event_time": arrow.timestamp("us", tz="UTC"),
        "status": arrow.int16(),
        "attempts": arrow.int32(),
        "counts": arrow.int8(),
    }
    schema, remaining = arrow.schema(list(kinds.items())), iter(rows)
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        while group := list(islice(remaining, _GROUP_ROWS)):
            columns = list(zip(*group, strict=True))
            values = [[each or None for each in column] for column in columns]
            values[_ATTEMPTS] = list(columns[_ATTEMPTS])
            arrays = map(arrow.array, values, kinds.values())
            writer.write_table(arrow.Table.from_arrays(list(arrays), schema=schema))


_ATTEMPTS: Final = OutcomeRow._fields.index("attempts")


def refuse_existing(address: str) -> None:
    """Refuse to write to an address at which something is.

    Raises:
        UsageWrong: There is, or nothing can be written there.
    """
    if Bucket(address).has() if _is_bucket(address) else Path(address).exists():
        raise UsageWrong(f"{address}: is there already; name a new file.")


def put(address: str, write: Callable[[BinaryIO], None]) -> None:
    """Write a file that appears as a whole, unless it is there already.

    Args:
        address: A path, or a URL of a bucket; the content of an object is gathered in memory.
        write: Writes the content.

    Raises:
        UsageWrong: It can't be written there, and is not there.
        SourceUnavailable: The bucket can't be reached; the object may be there.
    """
    if _is_bucket(address):
        bucket = Bucket(address)
        if not bucket.has():
            content = io.BytesIO()
            write(content)
            bucket.put(content.getvalue())
        return
    whole = Path(address)
    if whole.exists():
        return
    part = whole.with_name(f".{whole.name}.part")
    try:
        with private_file(part) as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(whole)
    except OSError as error:
        raise UsageWrong(f"{address} can't be written ({error.strerror or error}).") from error
    finally:
        part.unlink(missing_ok=True)


def _is_bucket(address: str) -> bool:
    scheme, separator, _ = address.partition("://")
    if separator and scheme not in BUCKETS:
        raise UsageWrong(f"{scheme}:// can't be written to; name a file, or s3://, gs:// or az://.")
    return bool(separator)


app = typer.Typer(help="Read how deliveries ended, as rows for a warehouse.")

_STANDARD_OUTPUT: Final = "-"
_HOLD_SECONDS: Final = 2.0
"""The seconds after which an export that writes extends its lock."""


@app.callback()
def outcomes() -> None:
    """Read how deliveries ended, as rows for a warehouse."""


@app.command()
def export(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-",
            help="The file to write, .ndjson or .parquet, also s3://, gs:// or az://; it must not"
            " exist. - writes NDJSON to standard output.",
        ),
    ],
    *,
    since: Annotated[
        str, typer.Option(help="Since 2026-11-24T10:00:00Z, or 2h for two hours ago.")
    ] = "",
    until: Annotated[str, typer.Option(help="Until then, without that moment itself.")] = "",
    cursor: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="All that has not left under this name yet; each row leaves once."
        ),
    ] = "",
    relay: Acts,
) -> None:
    """Write the ends of deliveries that Redis keeps to a file, each once.

    A row has `counts` 1. A dead letter that was replayed or discarded has a row more, with -1: the
    sums of `counts` by outcome are the counts of `segrelay status`. The file appears when it is
    complete. Exits with 1 if rows of that time, or since the last export of that name, are gone.
    """
    client, settings = relay.client, relay.settings
    if cursor and (since or until or file == _STANDARD_OUTPUT):
        raise UsageWrong("--cursor takes a file, and neither --since nor --until.")
    if file != _STANDARD_OUTPUT:
        format_of(file)
    where = str(Path(file).resolve()) if "://" not in file and file != _STANDARD_OUTPUT else file
    act = relay.act(since=since, until=until, cursor=cursor, **{EXPORTED_FILE: where})
    partitions = all_partitions(client, settings)
    missing_before_ms = 0

    def written(doing: Doing) -> int:
        nonlocal missing_before_ms
        if cursor:
            export_ = CursorExport(client, partitions, cursor)
            doing.count = export_.write(file)
            missing_before_ms = export_.missing_before_ms
            return doing.count
        now = now_ms(client)
        since_ms = parse_moment_ms(since, "--since", now_ms=now)
        until_ms = min(parse_moment_ms(until, "--until", now_ms=now) or now, now)
        if since_ms >= until_ms:
            raise UsageWrong("--until has to be later than --since, and both before now.")
        ranges = [Range(at, str(since_ms), str(until_ms - 1)) for at in partitions]
        if file != _STANDARD_OUTPUT:
            refuse_existing(file)
        doing.count = _write_rows(client, ranges, file)
        complete_ms = max(complete_since_ms(client, partitions), default=0)
        missing_before_ms = complete_ms if since_ms and complete_ms > since_ms else 0
        return doing.count

    count = perform(client, act, written)
    mention(f"{plural(count, 'row')} written")
    if missing_before_ms:
        mention(
            f"Not all of it is kept: rows from before {shown_ms(missing_before_ms)} are gone"
            " (outcomes.max_bytes, retention.history)."
        )
        raise typer.Exit(1)


class CursorExport:
    """An export of all that has not left yet under a name.

    What a file covers is kept in Redis before it is written, and the cursor moves on only when the
    file stands: an export that was killed in between is finished by the next one of that name.
    """

    def __init__(self, client: Redis, partitions: list[PartitionKeys], name: str) -> None:
        if not NAME_PATTERN.fullmatch(name):
            raise UsageWrong(f"--cursor {name}: write small letters, digits and hyphens.")
        self._client = client
        self._partitions = partitions
        self._store = StepStore(client, outcome_cursor(name), f"the export '{name}'", Cursor)
        self.missing_before_ms = 0

    def write(self, file: str) -> int:
        """Write the rows that have not left yet to a file, if there are any; return how many.

        Raises:
            UsageWrong: The file is there already, or another export has the name now.
        """
        if self._store.peek().file != file:
            refuse_existing(file)
        taken = self._store.take()
        if taken is None:
            raise UsageWrong("Another export under this name is under way; wait until it ends.")
        cursor = taken[0]
        begun, unfinished = cursor.rows, cursor.file
        try:
            if unfinished:
                self._finish(cursor)
            if unfinished != file:
                self._begin(cursor, file)
        finally:
            # Whoever has taken the lock over writes the same rows to the same file.
            with suppress(LeaseLost):
                self._store.save(cursor, ends=True)
        return cursor.rows - begun

    def _begin(self, cursor: Cursor, file: str) -> None:
        last = last_ids(self._client, self._partitions)
        newest = {at.tag: entry_id for at, entry_id in last.items() if entry_id != "0-0"}
        cursor.until = {
            tag: entry_id for tag, entry_id in newest.items() if cursor.after.get(tag) != entry_id
        }
        if cursor.until:
            cursor.file = file
            self._store.save(cursor)
            try:
                self._finish(cursor)
            except UsageWrong:  # nothing can be there
                cursor.until, cursor.file = {}, ""
                raise

    def _finish(self, cursor: Cursor) -> None:
        hold_at = time.monotonic() + _HOLD_SECONDS

        def hold() -> None:
            nonlocal hold_at
            if time.monotonic() >= hold_at:
                self._store.save(cursor)
                hold_at = time.monotonic() + _HOLD_SECONDS

        ranges = cursor.ranges(self._partitions)
        cursor.rows += _write_rows(self._client, ranges, cursor.file, hold)
        since = complete_since_ms(self._client, self._partitions)
        missed = [ms for at, ms in zip(self._partitions, since, strict=True)
                  if cursor.has_missed(at, ms)]  # fmt: skip
        self.missing_before_ms = max([self.missing_before_ms, *missed])
        cursor.after |= cursor.until
        cursor.until, cursor.file = {}, ""
        self._store.save(cursor)


def _write_rows(
    client: Redis, ranges: Iterable[Range], file: str, between: Callable[[], None] = lambda: None
) -> int:
    """Write the rows of ranges to a file or to standard output; return how many."""
    count = 0

    def ends() -> Iterator[OutcomeRow]:
        nonlocal count
        with progress("exported") as shown:
            for rows in rows_of(client, ranges, between):
                found = [row for row in rows if row.counts]
                count += len(found)
                shown(len(found))
                yield from found

    if file == _STANDARD_OUTPUT:
        write_rows("ndjson", sys.stdout.buffer, ends())
    else:
        put(file, lambda stream: write_rows(format_of(file), stream, ends()))
    return count


TAPPED: Final = ("delivered", "skipped", "dead", "discarded", RETRY)
_LONGEST_SECONDS: Final = 3_600.0
_LOOK_SECONDS: Final = 0.25
_SHOWN_DIGEST: Final = 8


@dataclass(frozen=True, slots=True)
class TapOptions:
    """Options that narrow each other; without any of them everything is shown."""

    trigger: Annotated[str, typer.Option(help="Only of this trigger.")] = ""
    audience: Annotated[str, typer.Option(help="Only of this audience.")] = ""
    destination: DestinationName = ""
    outcome: Annotated[
        str, typer.Option(help=f"Only outcomes of this kind: {', '.join(TAPPED)}.")
    ] = ""
    person: Annotated[
        str, typer.Option(help="Only of this person: a value of the identity field, or a digest.")
    ] = ""
    text: Annotated[str, typer.Option(help="Only with this text in what is shown.")] = ""

    def chosen(self, settings: Settings) -> Self:
        """Return the options with the digest of the person that they name.

        Raises:
            UsageWrong: There is no such trigger, destination or outcome.
        """
        if self.outcome and self.outcome not in TAPPED:
            raise UsageWrong(f"--outcome {self.outcome}: write one of {', '.join(TAPPED)}.")
        if self.trigger:
            configured("trigger", self.trigger, settings.triggers)
        if self.destination:
            configured("destination", self.destination, settings.destinations)
        person = self.person.lower()
        if person and not is_digest(person):
            person = person_named(self.person, settings).digest.hex()
        return replace(self, person=person)

    def wants(self, row: OutcomeRow) -> bool:
        """Say whether a row is shown."""
        return (
            self.trigger in {"", row.trigger}
            and self.audience in {"", row.audience}
            and self.destination in {"", row.destination}
            and self.outcome in {"", row.outcome}
            and self.person in {"", row.person}
            and self.text.casefold() in line_of(row).casefold()
        )


def tap(
    *,
    options: TapOptions,
    for_: Annotated[
        str, typer.Option("--for", help="End after this, e.g. 15s or 5m; at most 1h.")
    ] = "1m",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each row as a line of JSON.")
    ] = False,
    relay: Reads,
) -> None:
    """Show how deliveries end, as they do: a line for each, from the outcome log.

    It ends by itself, or with Ctrl-C. People are digests; `segrelay why DIGEST` says more.
    """
    seconds = parse_seconds(for_, "--for")
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageWrong(f"--for {for_}: write up to 1h, such as 15s or 5m.")
    wanted = options.chosen(relay.settings)
    count = 0
    with suppress(KeyboardInterrupt):
        for row in _followed(LogFollower(relay.client, relay.settings), seconds):
            if wanted.wants(row):
                count += 1
                if as_json:
                    sys.stdout.write(json_text(orjson.dumps(document_of(row))) + "\n")
                else:
                    say(line_of(row))
    if is_all_written():
        mention(f"{plural(count, 'row')} shown.")


def _followed(log: LogFollower, seconds: float) -> Iterator[OutcomeRow]:
    """Yield the rows that come for so long. A Redis that is away for a while does not end it."""
    ends_at = time.monotonic() + seconds
    while is_all_written():
        is_last = time.monotonic() >= ends_at
        try:
            yield from log.look()
        except RedisUnavailable as error:
            mention(error.message)
        if is_last:
            return
        time.sleep(max(0.0, min(_LOOK_SECONDS, ends_at - time.monotonic())))


def line_of(row: OutcomeRow) -> str:
    """Return a row as a line, the fixed parts first."""
    what = f"{row.direction} {row.audience} for {row.trigger}"
    parts = (shown_ms(row.time_ms)[11:23], what, row.person[:_SHOWN_DIGEST], detail_of(row))
    return "  ".join(part for part in parts if part)


def detail_of(row: OutcomeRow) -> str:
    """Return the part of a line that says how the delivery ended."""
    parts = (row.outcome, row.reason, row.status, row.message)
    return " ".join(str(part) for part in parts if part)

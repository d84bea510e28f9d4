"""The outcome log: reading it, `segrelay outcomes`, which exports its rows, and `segrelay tap`.

Each exported file is whole, or not there.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal, NamedTuple, Self

import orjson
import typer

from segrelay.ops.state.opened import EXPORTED_FILE, Acts, Doing, Reads, perform
from segrelay.ops.state.partitions import (
    OUTCOMES,
    REASONED,
    Counts,
    add_up,
    all_partitions,
    ask_each,
    counts_of,
    read_stream,
    snapshots,
)
from segrelay.ops.state.person import is_digest, person_named
from segrelay.ops.status.problems import counted
from segrelay.ops.terminal.console import is_all_written, mention, private_file, progress, say
from segrelay.ops.terminal.moments import parse_moment_ms, parse_seconds, shown_ms, shown_us
from segrelay.ops.terminal.options import DestinationName, configured
from segrelay.producer.publishing.published import Published
from segrelay.producer.sources.remote import Bucket
from segrelay.producer.steps import StepState, StepStore
from segrelay.worker.contract.keys import PartitionKeys, outcome_cursor
from segrelay.worker.contract.outcomes import RETRY, OutcomeRow, unpack
from segrelay.worker.contract.printable import json_text, plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.urls import BUCKETS
from segrelay.worker.contract.words import NAME_PATTERN
from segrelay.worker.errors import LeaseLost, OperationsMustAct, RedisUnavailable, UsageWrong

_READ_AT_ONCE: Final = 20
"""Entries read in one call: one holds the rows of up to some thousand deliveries."""
_NEWEST: Final = 5
"""The number of newest entries that are read of each partition to find the newest rows."""


class Range(NamedTuple):
    """A part of the log of one partition, from one id to another, as XRANGE takes them."""

    partition: PartitionKeys
    first: str
    last: str


def entries(client: Redis, one: Range) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    """Yield the entries of a range."""
    return read_stream(client, one.partition.outcomes, one.first, one.last, _READ_AT_ONCE)


def rows_of(
    client: Redis, ranges: Iterable[Range], between: Callable[[], None] = lambda: None
) -> Iterator[list[OutcomeRow]]:
    """Yield the rows of ranges, those of each entry in one list.

    Args:
        client: A connection to the Redis of the log.
        ranges: The parts of the log.
        between: A function that is called before each entry.
    """
    for one in ranges:
        for entry_id, entry in entries(client, one):
            between()
            yield list(unpack(one.partition, entry_id, entry))


def newest_rows(client: Redis, partitions: Sequence[PartitionKeys]) -> Iterator[OutcomeRow]:
    """Yield the newest rows of partitions, the newest first."""
    answers = ask_each(
        client, partitions, lambda pipe, at: pipe.xrevrange(at.outcomes, count=_NEWEST)
    )
    found = [
        (entry_id, at, entry)
        for at, rows in zip(partitions, answers, strict=True)
        for entry_id, entry in rows
    ]
    for entry_id, at, entry in sorted(found, key=lambda one: -int(one[0].partition(b"-")[0])):
        yield from reversed(list(unpack(at, entry_id, entry)))


class Ended(NamedTuple):
    """The outcomes of deliveries that somebody waited for.

    Attributes:
        accepted: The number of deliveries that were accepted.
        waiting: The number of deliveries that still wait.
        counts: The number of deliveries by outcome, as far as it is known.
        show: The command that shows those that died; "" = none did.
    """

    accepted: int
    waiting: int
    counts: Counts
    show: str = ""

    def document(self) -> dict[str, Any]:
        """Return the outcomes as `--json` prints them."""
        kinds = (*OUTCOMES[1:], *(f"{kind}_by_reason" for kind in REASONED))
        found = {kind: getattr(self.counts, kind) for kind in kinds}
        return {"accepted": self.accepted, "waiting": self.waiting, **found}

    def lines(self) -> Iterator[str]:
        """Yield a sentence with the outcomes, and the command that shows the dead letters."""
        parts = []
        for kind in OUTCOMES[1:]:
            if count := self.counts.of(kind):
                reasons = self.counts.by_reason(kind) if kind in REASONED else {}
                words = next(iter(reasons)) if len(reasons) == 1 else counted(reasons)
                parts.append(f"{count:,} {kind}" + (f": {words}" if words else ""))
        settled = self.accepted - self.waiting
        if settled > self.counts.settled:
            parts.append(f"{settled - self.counts.settled:,} that the outcome log has no row of")
        if self.accepted:
            yield f"settled {settled:,} of {self.accepted:,}: {', '.join(parts)}".removesuffix(": ")
        if self.show:
            yield f"→ {self.show}"


def read_ended(client: Redis, settings: Settings, sent: str | Published, waiting: int) -> Ended:
    """Read the outcomes of a job (its name), or of published deliveries, whose people are known."""
    partitions = all_partitions(client, settings)
    if isinstance(sent, str):
        counts = counts_of(*add_up(snapshots(client, partitions), settings).by_job[sent].values())
        show = f"segrelay dlq list --job {sent}" if counts.dead else ""
        return Ended(counts.accepted, counts.waiting, counts, show)
    people = {digest.hex() for digest in sent.people}
    tally: Counter[str] = Counter()
    died: list[tuple[PartitionKeys, int]] = []
    for at in partitions:
        begun_ms = {
            key.removeprefix(at.stream("")): int(added.first.partition("-")[0])
            for key, added in sent.entries.items()
            if key.startswith(at.tag)
        }
        own = [Range(at, str(min(begun_ms.values())), "+")] if begun_ms else []
        for row in chain.from_iterable(rows_of(client, own)):
            is_ours = f"{row.lane}|{row.trigger}" in begun_ms and row.person in people
            if is_ours and row.counts > 0:
                reason = f"|{row.reason}" if row.outcome in REASONED else ""
                tally[row.outcome + reason] += 1
                if row.outcome == "dead":
                    died.append((at, row.time_ms))
    letters: Any = []
    if len(died) == 1:
        [(at, died_ms)] = died
        letters = client.zrangebyscore(at.dead_letter_times, died_ms, died_ms)
    is_one = len(letters) == 1
    show = f"segrelay dlq show {letters[0].decode()}" if is_one else "segrelay dlq causes"
    counts = counts_of(tally)
    return Ended(sent.accepted, waiting, counts, show if counts.dead else "")


def rows_about(
    client: Redis, partition: PartitionKeys, people: Collection[str]
) -> Iterator[OutcomeRow]:
    """Yield the rows of a partition about people, by their digests (hex), the oldest first."""
    for entry_id, entry in entries(client, Range(partition, "-", "+")):
        yield from unpack(partition, entry_id, entry, people)


def complete_since_ms(client: Redis, partitions: Sequence[PartitionKeys]) -> list[int]:
    """Return, of each partition, the time (ms) since which it has all rows; 0 = no row is gone."""
    answers = ask_each(client, partitions, lambda pipe, at: pipe.hget(at.recorded, "since"))
    return [int(since or 0) for since in answers]


@dataclass(slots=True)
class LogFollower:
    """Reads the rows that are added to the log after its first look."""

    client: Redis
    settings: Settings
    _after: dict[PartitionKeys, str] = field(default_factory=dict)

    def look(self) -> list[OutcomeRow]:
        """Return the rows that have come since the last look, by time; some wait for the next."""
        partitions = all_partitions(self.client, self.settings)
        if not self._after:
            self._after = last_ids(self.client, partitions)
            return []
        answers = ask_each(
            self.client,
            partitions,
            lambda pipe, at: pipe.xrange(
                at.outcomes, f"({self._after.get(at, '0-0')}", count=_READ_AT_ONCE
            ),
        )
        rows: list[OutcomeRow] = []
        for at, found in zip(partitions, answers, strict=True):
            for entry_id, entry in found:
                rows += unpack(at, entry_id, entry)
                self._after[at] = entry_id.decode()
        return sorted(rows, key=lambda row: row.time_ms)


def last_ids(client: Redis, partitions: Sequence[PartitionKeys]) -> dict[PartitionKeys, str]:
    """Return the id of the last entry of each partition's log; `0-0` = there is none."""
    answers = ask_each(client, partitions, lambda pipe, at: pipe.xrevrange(at.outcomes, count=1))
    return {
        at: rows[0][0].decode() if rows else "0-0"
        for at, rows in zip(partitions, answers, strict=True)
    }


@dataclass(slots=True)
class Cursor(StepState):
    """The progress of the exports under a name.

    Args:
        after: The id of the last entry that was exported, by the partition's tag.
        until: The id of the last entry of the file that is being written, by the partition's tag.
        file: The address of the file that is being written; "" = none is.
        rows: The number of rows that were exported.
    """

    begins_anew = False
    after: dict[str, str] = field(default_factory=dict)
    until: dict[str, str] = field(default_factory=dict)
    file: str = ""
    rows: int = 0

    def has_missed(self, partition: PartitionKeys, since_ms: int) -> bool:
        """Say whether rows of a partition are gone from Redis that were not exported."""
        after = self.after.get(partition.tag)
        return after is not None and since_ms > int(after.partition("-")[0]) + 1

    def ranges(self, partitions: Collection[PartitionKeys]) -> list[Range]:
        """Return the parts of the log that the file covers."""
        return [
            Range(at, f"({self.after.get(at.tag, '0-0')}", self.until[at.tag])
            for at in partitions
            if at.tag in self.until
        ]


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
    return _values_of(row) | {
        "time": shown_ms(row.time_ms),
        "event_time": shown_us(row.event_time_us) if row.event_time_us else None,
    }


def _values_of(row: OutcomeRow) -> dict[str, Any]:
    values = dict(zip(_COLUMNS, (value or None for value in row), strict=True))
    return values | {"attempts": row.attempts, "counts": row.counts}


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
    schema, remaining = arrow.schema(list(kinds.items())), map(_values_of, rows)
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        while group := list(islice(remaining, _GROUP_ROWS)):
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def refuse_existing(address: str) -> None:
    """Refuse to write to an address at which something is.

    Raises:
        UsageWrong: Something is there, or nothing can be written there.
    """
    if Bucket(address).has() if _is_bucket(address) else Path(address).exists():
        raise UsageWrong(f"{address}: is there already; name a new file.")


def put(address: str, write: Callable[[BinaryIO], None]) -> None:
    """Write a file that appears as a whole, unless it is there already.

    Args:
        address: The path, or the URL of a bucket; the content of an object is gathered in memory.
        write: A function that writes the content to a stream.

    Raises:
        UsageWrong: The file can't be written, and is not there already.
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

    def written(doing: Doing) -> tuple[int, int]:
        if cursor:
            doing.count, missing_ms = _export_new(client, partitions, cursor, file)
            return doing.count, missing_ms
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
        return doing.count, complete_ms if 0 < since_ms < complete_ms else 0

    count, missing_before_ms = perform(client, act, written)
    mention(f"{plural(count, 'row')} written")
    if missing_before_ms:
        mention(
            f"Not all of it is kept: rows from before {shown_ms(missing_before_ms)} are gone"
            " (outcomes.max_bytes, retention.history)."
        )
        raise typer.Exit(1)


def _export_new(
    client: Redis, partitions: list[PartitionKeys], name: str, file: str
) -> tuple[int, int]:
    """Write the rows that were not exported yet under a name to a file, if there are any.

    What a file covers is kept in Redis before it is written, and the cursor moves on only when the
    file stands: an export that was killed in between is finished by the next one of that name.

    Returns:
        The number of rows, and the time (ms) before which some are gone that were not exported; 0 =
        none are.

    Raises:
        UsageWrong: The file is there already, or another export has the name now.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise UsageWrong(f"--cursor {name}: write small letters, digits and hyphens.")
    store = StepStore(client, outcome_cursor(name), f"the export '{name}'", Cursor)
    if store.peek().file != file:
        refuse_existing(file)
    taken = store.take()
    if taken is None:
        raise UsageWrong("Another export under this name is under way; wait until it ends.")
    cursor, missing_before_ms = taken[0], 0
    begun, unfinished = cursor.rows, cursor.file

    def finish() -> None:
        nonlocal missing_before_ms
        hold_at = time.monotonic() + _HOLD_SECONDS

        def hold() -> None:
            nonlocal hold_at
            if time.monotonic() >= hold_at:
                store.save(cursor)
                hold_at = time.monotonic() + _HOLD_SECONDS

        cursor.rows += _write_rows(client, cursor.ranges(partitions), cursor.file, hold)
        since = zip(partitions, complete_since_ms(client, partitions), strict=True)
        missed = (ms for at, ms in since if cursor.has_missed(at, ms))
        missing_before_ms = max([missing_before_ms, *missed])
        cursor.after |= cursor.until
        cursor.until, cursor.file = {}, ""
        store.save(cursor)

    try:
        if unfinished:
            finish()
        last = last_ids(client, partitions) if unfinished != file else {}
        newest = {at.tag: entry_id for at, entry_id in last.items() if entry_id != "0-0"}
        cursor.until = {
            tag: entry_id for tag, entry_id in newest.items() if cursor.after.get(tag) != entry_id
        }
        if cursor.until:
            cursor.file = file
            store.save(cursor)
            try:
                finish()
            except UsageWrong:  # nothing can be there
                cursor.until, cursor.file = {}, ""
                raise
    finally:
        # Whoever has taken the lock over writes the same rows to the same file.
        with suppress(LeaseLost):
            store.save(cursor, ends=True)
    return cursor.rows - begun, missing_before_ms


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
    """Yield the rows that come within some seconds, also after Redis was away for a while."""
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

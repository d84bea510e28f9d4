"""Making a job from the options of a backfill: finds files, reads times, checks triggers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from segrelay.ops.terminal.console import progress
from segrelay.ops.terminal.options import OlderThanLedger
from segrelay.producer.backfill.jobs import Job, JobStore, Spec
from segrelay.producer.backfill.reading import refuse_first_rows
from segrelay.producer.events.payloads import RowForm, format_time, parse_time, refuse_future
from segrelay.producer.lytics import PREFIX, audience_of, look_at
from segrelay.producer.publishing.audiences import AudienceStore, named_audience
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import (
    STANDARD_INPUT,
    files_of,
    look_at_file,
    no_such_file,
    opened,
)
from segrelay.producer.sources.tables import Columns
from segrelay.producer.sync.step import columns_of
from segrelay.worker.contract.own_processes import processors
from segrelay.worker.contract.printable import did_you_mean
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import NAME_PATTERN
from segrelay.worker.errors import PayloadRefused, UsageWrong

_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")
_MOST_SHARDS: Final = 8
_COLUMN: Final = "column:"
_MILLISECOND_US: Final = 1_000
_TIME_IN_NAME: Final = re.compile(
    r"(?<!\d)(20\d\d)[-_.]?(\d\d)[-_.]?(\d\d)"
    r"(?:[T _.-]?(\d\d)[-_.:]?(\d\d)(?:[-_.:]?(\d\d))?Z?)?(?!\d)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """The options by which a command describes the rows of a backfill."""

    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Files or URLs (s3://, gs://, az://), patterns in quotes, -, or lytics:SLUG.",
        ),
    ]
    audience: Annotated[
        str,
        typer.Option(help="Slug or id of the audience that the people in the rows belong to."),
    ] = ""
    audience_id: Annotated[
        str,
        typer.Option(
            help="The id of the audience, for templates that read it.  [default: the known one]"
        ),
    ] = ""
    on: Annotated[
        Literal["enter", "exit"],
        typer.Option(help="Whether the rows entered or left the audience."),
    ] = "enter"
    as_of: Annotated[
        str,
        typer.Option(
            help="When the rows were true: a time; name = as the file's name says, in UTC; "
            "column:NAME = as each row says; file = when the file was last written to, which is "
            "the end of its writing; or now.",
            metavar="TIME",
        ),
    ] = ""
    trigger: Annotated[
        list[str] | None, typer.Option(help="Deliver for these triggers only; repeatable.")
    ] = None
    columns: Annotated[
        str, typer.Option(help="Names for a CSV without a header: email,first_name,…")
    ] = ""
    hooks: Annotated[
        bool, typer.Option("--hooks", help="Let Insider start journeys for these people.")
    ] = False
    again: Annotated[
        bool, typer.Option("--again", help="Also deliver what was delivered before.")
    ] = False
    older_than_ledger: OlderThanLedger = False


def spec_of(
    wanted: RowOptions, settings: Settings, client: Redis, *, name: str = "", canary: int = 0
) -> Spec:
    """Return the specification of a job from the options of its command."""
    store = JobStore(client)
    files = list(_files(wanted.sources))
    audiences = AudienceStore(client, learns=False)
    if audience := wanted.audience or _scanned(files):
        slug, audience_id = named_audience(audiences, audience, wanted.audience_id)
        wanted = replace(wanted, audience=slug, audience_id=audience_id)
    triggers = _checked_triggers(wanted, settings)
    looked = _first_look(files, settings, store)
    membership = _membership(wanted, files, looked, 1_000 * store.now_ms())
    names = (each.strip() for each in wanted.columns.split(","))
    columns = replace(columns_of(settings), names=tuple(filter(None, names)))
    measured = [_measured(name, columns, membership) for name in files]
    now_us = time.time_ns() // 1_000
    job = _name(name, wanted.audience, files, store)
    return Spec(
        name=job,
        sources=tuple(files),
        digests=tuple(digest for digest, _ in measured),
        size=sum(size for _, size in measured),
        membership=membership,
        expected_rows=looked[1] if looked else 0,
        columns=columns,
        options=PublishOptions(
            job=job,
            skip_hook=not wanted.hooks,
            triggers=triggers,
            again=wanted.again,
            older_than_ledger=wanted.older_than_ledger,
        ),
        canary=canary,
        shards=min(_MOST_SHARDS, processors()),
        routing=routing_digest(settings),
        attempt=now_us // _MILLISECOND_US,
        started_at=format_time(now_us),
    )


def refuse_forgotten_rows(spec: Spec, settings: Settings, now_us: int) -> None:
    """Refuse a job whose rows were true before what the ledger remembers, unless that is wanted.

    Rows that have times of their own are refused one by one.

    Args:
        spec: The job.
        settings: The configuration.
        now_us: The time by Redis' clock.

    Raises:
        UsageWrong: They were, so that none would be accepted.
    """
    if spec.options.older_than_ledger or spec.membership is None or not spec.membership.at:
        return
    since_us = settings.delivery.remembers_since_us(now_us)
    if parse_time(spec.membership.at) < since_us:
        raise UsageWrong(
            f"The rows were true at {spec.membership.at}, and the ledger remembers only what was"
            f" delivered since {format_time(since_us)} (delivery.ledger_retention): who has left"
            " in between may be entered again. Use a newer export; or, if the rows are still true,"
            " say --older-than-ledger."
        )


def read_anew(job: Job, settings: Settings, store: JobStore) -> Spec:
    """Return the specification by which a job reads its source from the beginning again.

    A scan gets a new time. First rows (`--canary`) that were delivered are not waited for again.
    """
    spec = job.spec
    canary = 0 if job.phase == "canary" else spec.canary
    again = replace(spec, attempt=spec.attempt + 1, canary=canary)
    looked = _first_look(spec.sources, settings, store)
    if looked is None or spec.membership is None:
        return again
    membership = replace(spec.membership, at=format_time(looked[0]))
    return replace(again, membership=membership, expected_rows=looked[1])


@contextmanager
def progress_of_rows(spec: Spec) -> Iterator[Callable[[int, int], None]]:
    """Show how far the sources of a job are read: in bytes where their size is known, else in rows.

    Yields:
        A function that is told the bytes and the rows that are read so far.
    """
    shown = 0
    size = spec.size or spec.expected_rows
    with progress("read, in bytes" if spec.size else "read, in rows", size or None) as bar:

        def advance(bytes_read: int, rows: int) -> None:
            nonlocal shown
            done = bytes_read if spec.size else rows
            bar(done - shown)
            shown = done

        yield advance


def _scanned(sources: Sequence[str]) -> str:
    return next((slug for name in sources if (slug := audience_of(name))), "")


def _first_look(
    sources: Sequence[str], settings: Settings, store: JobStore
) -> tuple[int, int] | None:
    """Return the time of a job's scan (µs) and the number of members; None if it scans nothing."""
    audience = _scanned(sources)
    if not audience:
        return None
    if len(sources) > 1:
        raise UsageWrong(f"{PREFIX}{audience} is a job of its own: it has Lytics' own time.")
    return look_at(settings, audience, 1_000 * store.now_ms())


def _files(sources: Sequence[str]) -> Iterator[str]:
    for source in sources:
        if source == STANDARD_INPUT or audience_of(source) or Path(source).exists():
            yield source
            continue
        found = files_of(source)
        if not found:
            raise no_such_file(source)
        yield from found


def _measured(name: str, columns: Columns, membership: RowForm | None) -> tuple[str, int]:
    """Return digest and size of a file."""
    if name == STANDARD_INPUT or audience_of(name):
        return "", 0
    with opened(name) as found:
        refuse_first_rows(name, next(blocks_of(found, columns), None), membership)
        return found.digest, found.size


def _membership(
    wanted: RowOptions, files: Sequence[str], looked: tuple[int, int] | None, now_us: int
) -> RowForm | None:
    if not wanted.audience:
        return None
    if looked and wanted.as_of:
        raise UsageWrong("Leave --as-of away: a scan has the time of Lytics' own clock.")
    said = (wanted.audience, wanted.audience_id, wanted.on)
    if wanted.as_of.startswith(_COLUMN):
        column = wanted.as_of.removeprefix(_COLUMN).strip()
        if not column:
            raise UsageWrong("Name the column that holds the time: --as-of column:NAME.")
        return RowForm(*said, at="", column=column)
    time_us = looked[0] if looked else _time_us(wanted.as_of, files)
    try:
        refuse_future(time_us, now_us)
    except PayloadRefused as refusal:
        raise UsageWrong(
            f"--as-of {wanted.as_of} is {format_time(time_us)}, which is in the future by Redis' "
            "clock: no row would be accepted. Write when the rows were true."
        ) from refusal
    return RowForm(*said, at=format_time(time_us))


def _time_us(as_of: str, files: Sequence[str]) -> int:
    """Return the time at which the rows were true, in µs since 1970."""
    if as_of in {"file", "name"} and STANDARD_INPUT in files:
        raise UsageWrong(f"--as-of {as_of}: standard input has none; write the time.")
    match as_of:
        case "":
            raise UsageWrong(
                "Say with --as-of when the rows were true, for example when the export began: "
                "--as-of 2026-11-25T06:00:00Z. Everything that happened later wins over them. "
                "`name` takes the time from the file's name, `column:NAME` takes each row's from "
                "a column. (`now`, and `file`, the end of the file's writing, are for exports "
                "that were made right now and quickly: a copy or a download has the time of the "
                "copy.)"
            )
        case "now":
            return time.time_ns() // 1_000
        case "file":
            return min(map(_changed_us, files))
        case "name":
            return min(map(_named_us, files))
    try:
        return parse_time(as_of)
    except PayloadRefused as refusal:
        raise UsageWrong(
            f"--as-of {as_of}: {refusal.message} Write it like 2026-11-25T06:00:00Z."
        ) from refusal


def _changed_us(file: str) -> int:
    """Return the time at which a file was last written to, in µs since 1970."""
    state = look_at_file(file)
    if state is None or not state.changed_ns:
        raise UsageWrong(f"--as-of file: nothing tells when {file} was written; write the time.")
    return state.changed_ns // 1_000


def _named_us(file: str) -> int:
    """Return the time in a file's name, in µs since 1970; a date means the begin of that day."""
    found = list(_TIME_IN_NAME.finditer(Path(file).name))
    if len(found) != 1:
        raise UsageWrong(
            f"--as-of name: the name of {file} holds {'several times' if found else 'no time'}. "
            "It needs one like 2026-11-25, 20261125 or 2026-11-25T06-00-00Z, which is in UTC."
        )
    year, month, day, hour, minute, second = found[0].groups()
    try:
        at = f"{year}-{month}-{day}T{hour or '00'}:{minute or '00'}:{second or '00'}Z"
        return parse_time(at)
    except PayloadRefused as refusal:
        raise UsageWrong(f"--as-of name: {file}: {refusal.message}") from refusal


def _checked_triggers(wanted: RowOptions, settings: Settings) -> tuple[str, ...]:
    """Return the names of the triggers that may deliver the rows; none = all triggers."""
    names = tuple(wanted.trigger or ())
    for name in names:
        if name not in settings.triggers:
            raise UsageWrong(
                f"There is no trigger '{name}'. {did_you_mean(name, settings.triggers)}".strip()
            )
    chosen = [one for one in settings.triggers.values() if not names or one.name in names]
    audience = {wanted.audience, wanted.audience_id} - {""}
    wants = any(one.on == wanted.on and any(map(one.wants, audience)) for one in chosen)
    if wanted.audience and not wants:
        raise UsageWrong(
            f"No trigger wants the {wanted.on} of audience '{wanted.audience}': add one to "
            f"{settings.source.name}, or correct --audience or --on."
        )
    return names


def _name(wanted: str, audience: str, files: Sequence[str], store: JobStore) -> str:
    if wanted:
        if NAME_PATTERN.fullmatch(wanted):
            return wanted
        raise UsageWrong(f"A job's name has only a to z, 0 to 9 and -; '{wanted}' has others.")
    first = "input" if files[0] == STANDARD_INPUT else Path(files[0]).name.partition(".")[0]
    stem = _NOT_IN_NAMES.sub("-", (audience or first).lower()).strip("-") or "job"
    return store.free_name(stem if number == 1 else f"{stem}-{number}" for number in count(1))

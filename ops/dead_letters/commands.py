"""`segrelay dlq`: dead letters, why they died, and what to do with them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from dataclasses import replace as with_fields
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar, Final

import orjson
import typer

from segrelay.ops.dead_letters.reading import StoredDeadLetter, read_causes
from segrelay.ops.dead_letters.replay import DeadLetters, failed_at, shown
from segrelay.ops.kept import (
    MESSAGE_CHARACTERS,
    ExtentOptions,
    Filter,
    KeptOptions,
    discard_chosen,
    replay_chosen,
    show_one,
)
from segrelay.ops.samples import Payload
from segrelay.ops.send.sending import WaitOptions
from segrelay.ops.state.acts import EXPORTED_FILE, Acts, Asks, Doing, Reads, perform
from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.ops.state.person import person_named
from segrelay.ops.terminal.console import mention, private_file
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import shown_ms
from segrelay.ops.terminal.options import DestinationName, Force, Ids, Reveal
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import Death
from segrelay.worker.core.messages import location_in


@dataclass(frozen=True, slots=True)
class DeadLetterOptions(KeptOptions):
    """Options that narrow each other; none means all letters."""

    cause: Annotated[
        list[str] | None,
        typer.Option(
            "--cause", help="Only letters of this cause, as `dlq causes` shows it; repeatable."
        ),
    ] = None
    destination: DestinationName = ""
    trigger: Annotated[str, typer.Option(help="Only of this trigger.")] = ""
    job: Annotated[str, typer.Option(help="Only what this job has published.")] = ""
    text: Annotated[
        str,
        typer.Option(help="Only with this text in the message or the answer, as `show` has it."),
    ] = ""
    profile: Annotated[
        str,
        typer.Option(help="Only letters about this person: a value of the identity field."),
    ] = ""

    reasons: ClassVar[type[StrEnum]] = Death

    def chosen(
        self, client: Redis, settings: Settings, ids: Iterable[str] | None, *, force: bool = False
    ) -> Filter:
        """Return the filter that these options stand for."""
        digests: frozenset[str] = frozenset()
        numbers: frozenset[int] = frozenset()
        if self.profile:
            person = person_named(self.profile, settings)
            numbers = frozenset({person.partition})
            digests = frozenset({person.digest.hex()})
        return with_fields(
            KeptOptions.chosen(self, client, settings, ids, force=force),
            causes=frozenset(self.cause or ()),
            destination=self.destination,
            trigger=self.trigger,
            job=self.job,
            containing=self.text,
            digests=digests,
            partitions=numbers,
        )


app = typer.Typer(help="See, replay or discard dead letters.")

_PAGE: Final = 100
_LISTED: Final = ("reason", "trigger", "audience", "direction", "cause")


@app.command()
def replay(
    ids: Ids = None,
    *,
    options: DeadLetterOptions,
    extent: ExtentOptions,
    force: Force = False,
    waiting: WaitOptions,
    relay: Asks,
) -> Result:
    """Send letters again, through the backfill lane and with their event's own time.

    What something newer has made stale is skipped. An event without the id of its audience gets it,
    if it is known by now. A letter that was replayed three times in vain is left out unless it is
    named by its id. A dry run renders with today's templates.
    """
    store = DeadLetters(relay.client, relay.settings)
    return replay_chosen(relay, store, options, extent, ids, force=force, waiting=waiting)


@app.command()
def discard(
    ids: Ids = None, *, options: DeadLetterOptions, extent: ExtentOptions, relay: Asks
) -> Result:
    """Discard dead letters for good; they are counted as discarded."""
    store = DeadLetters(relay.client, relay.settings)
    return discard_chosen(relay, store, options, extent, ids)


@app.command()
def export(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-",
            help="The file to write; it must not exist. - writes to standard output.",
        ),
    ],
    *,
    options: DeadLetterOptions,
    relay: Acts,
) -> None:
    """Write letters as NDJSON, whole: with the profiles' fields. They also stay where they are."""
    where = "" if file == "-" else str(Path(file).resolve())
    wanted = options.chosen(relay.client, relay.settings, None)
    exported: set[str] = set()
    with _created(file) as stream:

        def written(doing: Doing) -> int:
            for dead_letter in DeadLetters(relay.client, relay.settings).find(wanted):
                if dead_letter["id"] not in exported:
                    stream.write(orjson.dumps(dead_letter) + b"\n")
                    exported.add(dead_letter["id"])
            doing.count = len(exported)
            return doing.count

        act = relay.act(**asdict(options), **{EXPORTED_FILE: where})
        count = perform(relay.client, act, written)
    mention(f"{plural(count, 'letter')} exported")


def _created(file: str) -> AbstractContextManager[BinaryIO]:
    """Open a new file that only its owner may read, or standard output for `-`."""
    if file == "-":
        return nullcontext(sys.stdout.buffer)
    return private_file(Path(file), must_be_new=True)


@app.command()
def causes(*, relay: Reads) -> Result:
    """Group dead letters by the cause of their death."""
    settings = relay.settings
    found = [
        (cause, failed_at(settings, cause.trigger, cause.message))
        for cause in read_causes(relay.client, all_partitions(relay.client, settings))
    ]
    columns: TableColumns = (
        "reason",
        "status",
        "trigger",
        "sample",
        "location",
        *text_columns("message"),
    )
    rows = [
        (
            c.cause,
            c.count,
            c.reason,
            c.status or "-",
            c.trigger,
            c.sample,
            location or "-",
            c.message.removeprefix(f"{location_in(c.message)}: "),
        )
        for c, location in found
    ]
    return Result(
        [asdict(c) | {"location": location} for c, location in found],
        Table(("cause", *number_columns("letters"), *columns), rows),
    )


@app.command("list")
def list_dead_letters(
    *,
    options: DeadLetterOptions,
    limit: Annotated[int, typer.Option(help="Show at most this many letters.", min=1)] = _PAGE,
    page: Annotated[int, typer.Option(help="Show this page of them, counted from 1.", min=1)] = 1,
    reveal: Reveal = False,
    relay: Reads,
) -> Result:
    """List letters, the newest death first."""
    client, settings = relay.client, relay.settings
    store = DeadLetters(client, settings)
    first = (page - 1) * limit
    found = store.find(options.chosen(client, settings, None))
    dead_letters = list(islice(found, first, first + limit))
    partitions = all_partitions(client, settings)
    kept = sum(ask_each(client, partitions, lambda pipe, one: pipe.hlen(one.dead_letters)))
    return Result(
        [store.document(each, reveal=reveal) for each in dead_letters],
        Table(
            ("letter", "died", *_LISTED, *text_columns("message")),
            [_row(dead_letter, reveal=reveal) for dead_letter in dead_letters],
        ),
        f"{len(dead_letters):,} shown of {plural(kept, 'letter')}",
        notes=[f"--page {page + 1} shows more."] if len(dead_letters) == limit else (),
    )


@app.command()
def show(
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Reveal = False,
    payload: Payload = False,
    relay: Reads,
) -> Result:
    """Show why one letter died, and what to do next; profile fields are masked.

    With --json it is all that is known of it.
    """
    store = DeadLetters(relay.client, relay.settings)
    return show_one(relay, store, dead_letter_id, reveal=reveal, payload=payload)


def _row(dead_letter: StoredDeadLetter, *, reveal: bool) -> tuple[str, ...]:
    message = shown(dead_letter, reveal=reveal)["message"]
    return (
        dead_letter["id"],
        shown_ms(dead_letter["last_at_ms"]),
        *(dead_letter[name] for name in _LISTED),
        message[:MESSAGE_CHARACTERS],
    )

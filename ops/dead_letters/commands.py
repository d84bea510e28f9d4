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

from segrelay.ops.dead_letters.files import Imported, import_dead_letters
from segrelay.ops.dead_letters.reading import StoredDeadLetter, dead_letters_kept, read_causes
from segrelay.ops.dead_letters.replay import DeadLetters, failed_at, shown
from segrelay.ops.kept import (
    MESSAGE_CHARACTERS,
    ActOptions,
    Filter,
    KeptOptions,
    carry_out,
    discard_chosen,
    mention_left_out,
    print_preview,
    show_one,
)
from segrelay.ops.state.acts import EXPORTED_FILE, Doing, act_of, perform
from segrelay.ops.state.opened import opened
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.person import person_named, read_former_identities
from segrelay.ops.terminal.console import (
    mention,
    print_json,
    print_result,
    private_file,
    say,
    table,
)
from segrelay.ops.terminal.moments import shown_ms
from segrelay.ops.terminal.options import Force, Ids, Json, Reveal, spread
from segrelay.ops.terminal.tables import number_columns, text_columns
from segrelay.producer.sources.files import opened_bytes as opened_file
from segrelay.worker.contract.redis.claim import claim, learn_numbering
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import Death, Refusal
from segrelay.worker.core.messages import place_in


@dataclass(frozen=True, slots=True)
class DeadLetterOptions(KeptOptions):
    """Options that narrow each other; none means all letters."""

    cause: Annotated[
        list[str] | None,
        typer.Option(
            "--cause", help="Only letters of this cause, as `dlq causes` shows it; repeatable."
        ),
    ] = None
    trigger: Annotated[str, typer.Option(help="Only of this trigger.")] = ""
    profile: Annotated[
        str,
        typer.Option(
            help="Only letters about this person, also those from before a renaming: a value of the"
            " identity field."
        ),
    ] = ""

    reasons: ClassVar[type[StrEnum]] = Death

    def chosen(
        self, client: Redis, settings: Settings, ids: Iterable[str] | None, *, force: bool = False
    ) -> Filter:
        """Return the filter that these options stand for."""
        digests: frozenset[str] = frozenset()
        partitions: frozenset[int] = frozenset()
        if self.profile:
            person = person_named(self.profile, settings, learn_numbering(client, settings))
            places = all_partitions(client, settings)
            people = [person, *read_former_identities(client, places, person.digest)]
            partitions = frozenset(each.partition for each in people)
            digests = frozenset(each.digest.hex() for each in people)
        return with_fields(
            KeptOptions.chosen(self, client, settings, ids, force=force),
            causes=frozenset(self.cause or ()),
            trigger=self.trigger,
            digests=digests,
            partitions=partitions,
        )


app = typer.Typer()

_PAGE: Final = 100
_LEFT_OUT: Final = {
    "orphaned": "the configuration does not name their trigger any more",
    "unwanted": "their trigger has another direction or other audiences now",
    "unreadable": "what they hold can't be read; name them by id to put them back as they were",
    "exhausted": "replayed three times in vain; name them by id to try again",
    Refusal.OLDER_THAN_LEDGER.value: "older than what the ledger remembers; --force replays them",
}


@app.command()
@spread
def replay(
    ids: Ids = None, *, options: DeadLetterOptions, force: Force = False, acting: ActOptions
) -> None:
    """Send letters again, through the backfill lane and with their event's own time.

    What something newer has made stale is skipped. An event without the id of its audience gets it,
    if it is known by now. A letter that was replayed three times in vain is left out unless it is
    named by its id. A dry run renders with today's templates.
    """
    options.refuse_accidental_all(ids, everything=acting.everything or acting.dry_run)
    with opened() as (settings, client):
        store = DeadLetters(client, settings)
        work = store.replay(options.chosen(client, settings, ids, force=force))
        if not (acting.dry_run and acting.as_json):
            mention_left_out(work, _LEFT_OUT)
        if acting.dry_run:
            print_preview(store, work, as_json=acting.as_json)
            return
        arguments = asdict(options) | {"ids": ids}
        act = act_of("dlq replay", reason=acting.because, arguments=arguments)
        question = f"Replay {work.count:,} letters?"
        done = carry_out(client, act, work, "replayed", question, yes=acting.yes)
    document = {"replayed": done, "left_out": dict(work.left_out)}
    print_result(document, f"{done:,} letters replayed", as_json=acting.as_json)


@app.command()
@spread
def discard(ids: Ids = None, *, options: DeadLetterOptions, acting: ActOptions) -> None:
    """Discard dead letters for good; they are counted as discarded."""
    discard_chosen(DeadLetters, options, ids, acting)


@app.command()
@spread
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
) -> None:
    """Write letters as NDJSON, whole: with the profiles' fields. They also stay where they are."""
    with opened() as (settings, client), _created(file) as stream:
        wanted = options.chosen(client, settings, None)
        where = "" if file == "-" else str(Path(file).resolve())
        exported: set[str] = set()
        act = act_of("dlq export", arguments=asdict(options) | {EXPORTED_FILE: where})

        def written(doing: Doing) -> int:
            for dead_letter in DeadLetters(client, settings).find(wanted):
                if dead_letter["id"] not in exported:
                    stream.write(orjson.dumps(dead_letter) + b"\n")
                    exported.add(dead_letter["id"])
            doing.count = len(exported)
            return doing.count

        count = perform(client, act, written)
    mention(f"{count:,} letters exported")


def _created(file: str) -> AbstractContextManager[BinaryIO]:
    """Open a new file that only its owner may read, or standard output for `-`."""
    if file == "-":
        return nullcontext(sys.stdout.buffer)
    return private_file(Path(file), must_be_new=True)


@app.command("import")
def import_file(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A file that `export` wrote.")],
    *,
    as_json: Json = False,
) -> None:
    """Put exported letters back; letters that are there already are not added again.

    The exit code is 1 if a line is no letter for this Redis.
    """
    with opened_file(file) as stream, opened() as (settings, client):
        claim(client, settings)
        count = learn_numbering(client, settings)

        def added(doing: Doing) -> Imported:
            imported = import_dead_letters(client, stream, settings, count)
            doing.count = imported.added
            return imported

        imported = perform(client, act_of("dlq import"), added)
    told = f"{imported.added:,} of {imported.lines:,} letters added"
    print_result(asdict(imported), told, as_json=as_json)
    if imported.problems:
        for each in () if as_json else imported.problems:
            mention(f"line {each['line']}: {each['reason']}")
        raise typer.Exit(1)


@app.command()
def causes(*, as_json: Json = False) -> None:
    """Group dead letters by the cause of their death."""
    with opened() as (settings, client):
        found = read_causes(client, all_partitions(client, settings))
    if as_json:
        print_json(
            [asdict(c) | {"place": failed_at(settings, c.trigger, c.message)} for c in found]
        )
        return
    table(
        (
            "cause",
            *number_columns("letters"),
            "reason",
            "status",
            "trigger",
            "sample",
            "place",
            *text_columns("message"),
        ),
        [
            (
                c.cause,
                c.count,
                c.reason,
                c.status or "-",
                c.trigger,
                c.sample,
                failed_at(settings, c.trigger, c.message) or "-",
                c.message.removeprefix(f"{place_in(c.message)}: "),
            )
            for c in found
        ],
    )


@app.command("list")
@spread
def list_dead_letters(
    *,
    options: DeadLetterOptions,
    limit: Annotated[int, typer.Option(help="Show at most this many letters.", min=1)] = _PAGE,
    page: Annotated[int, typer.Option(help="Show this page of them, counted from 1.", min=1)] = 1,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """List letters, the newest death first."""
    with opened() as (settings, client):
        store = DeadLetters(client, settings)
        first = (page - 1) * limit
        found = store.find(options.chosen(client, settings, None))
        dead_letters = list(islice(found, first, first + limit))
        kept = dead_letters_kept(client, all_partitions(client, settings))
    if as_json:
        print_json([store.document(each, reveal=reveal) for each in dead_letters])
        return
    table(
        (
            *("letter", "died", "reason", "trigger", "audience", "direction", "cause"),
            *text_columns("message"),
        ),
        [_row(dead_letter, reveal=reveal) for dead_letter in dead_letters],
    )
    say(f"{len(dead_letters):,} shown of {kept:,} letters")
    if len(dead_letters) == limit:
        mention(f"--page {page + 1} shows more.")


@app.command()
def show(
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """Show one letter with all that is known; profile fields are masked."""
    with opened() as (settings, client):
        show_one(DeadLetters(client, settings), dead_letter_id, reveal=reveal, as_json=as_json)


def _row(dead_letter: StoredDeadLetter, *, reveal: bool) -> tuple[str, ...]:
    message = shown(dead_letter, reveal=reveal)["message"]
    return (
        dead_letter["id"],
        shown_ms(dead_letter["last_at_ms"]),
        dead_letter["reason"],
        dead_letter["trigger"],
        dead_letter["audience"],
        dead_letter["direction"],
        dead_letter["cause"],
        message[:MESSAGE_CHARACTERS],
    )

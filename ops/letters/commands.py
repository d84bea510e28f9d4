"""`segrelay dlq`: dead letters, why they died, and what to do with them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import orjson
import typer
from redis import Redis

from ops.letters.files import Imported, import_letters
from ops.letters.masking import shown
from ops.letters.options import LetterOptions
from ops.letters.reading import (
    Filter,
    StoredLetter,
    find_letters,
    is_exhausted,
    letters_kept,
    read_causes,
)
from ops.letters.replay import ReplayPlan, plan_replay, rehearse_letters
from ops.letters.replay import discard as discard_letters
from ops.letters.replay import replay as replay_letters
from ops.state.acts import EXPORTED_FILE, Because, Doing, act_of, perform
from ops.state.opened import opened
from ops.state.partitions import all_partitions
from ops.terminal.console import (
    confirmed,
    mention,
    print_json,
    print_result,
    say,
    say_fields,
    table,
)
from ops.terminal.files import private_file
from ops.terminal.moments import shown_ms, shown_us
from ops.terminal.options import All, Force, Ids, Json, Reveal, Yes, spread
from ops.terminal.tables import number_columns, text_columns
from producer.doorbell import CeleryDoorbell
from producer.publishing.audiences import AudienceBook
from producer.sources.files import opened_bytes as opened_file
from worker.adapters.redis.meanings import read_meanings
from worker.contract.keys import PartitionKeys
from worker.contract.redis.claim import claim, learn_numbering
from worker.contract.redis.clock import now_ms
from worker.contract.settings import Settings
from worker.contract.words import Refusal
from worker.core.messages import place_in
from worker.errors import UsageWrong

app = typer.Typer()

_PAGE: Final = 100
_MESSAGE_CHARACTERS: Final = 80
_FATES: Final = ("sent", "skipped", "dead")
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
    ids: Ids = None,
    *,
    options: LetterOptions,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Send nothing: render with today's templates, and show what would be."
        ),
    ] = False,
    force: Force = False,
    everything: All = False,
    yes: Yes = False,
    because: Because = "",
    as_json: Json = False,
) -> None:
    """Send letters again, through the backfill lane and with their event's own time.

    What something newer has made stale is skipped. An event without the id of its audience gets it,
    if it is known by now. A letter that was replayed three times in vain
    is left out unless it is named by its id.
    """
    options.refuse_accidental_all(ids, everything=everything or dry_run)
    with opened() as (settings, client):
        places, wanted = options.chosen(client, settings, ids or ())
        now_us = 1_000 * now_ms(client)
        oldest_us = 0 if force else settings.delivery.remembers_since_us(now_us)
        letters = find_letters(client, places, wanted)
        meanings = read_meanings(client, settings)
        plan = plan_replay(letters, settings, oldest_us, meanings, named=bool(ids))
        audiences = AudienceBook(client, told=settings.told_ids, learns=False)
        if dry_run:
            _rehearse(client, settings, places, plan, audiences, as_json=as_json)
            return
        _tell_left_out(plan)
        if plan.ids:
            confirmed(f"Replay {len(plan.ids):,} letters?", yes=yes)
        doorbell = CeleryDoorbell(settings)
        arguments = asdict(options) | {"ids": ids}
        act = act_of("dlq replay", reason=because, arguments=arguments)

        def replayed(doing: Doing) -> int:
            steps = replay_letters(client, places, plan.ids, doorbell, audiences)
            return doing.counted("replayed", steps, len(plan.ids))

        done = perform(client, act, replayed)
    document = {"replayed": done, "left_out": dict(plan.left_out)}
    print_result(document, f"{done:,} letters replayed", as_json=as_json)


@app.command()
@spread
def discard(
    ids: Ids = None,
    *,
    options: LetterOptions,
    everything: All = False,
    yes: Yes = False,
    because: Because = "",
    as_json: Json = False,
) -> None:
    """Discard dead letters for good; they are counted as discarded."""
    options.refuse_accidental_all(ids, everything=everything)
    with opened() as (settings, client):
        places, wanted = options.chosen(client, settings, ids or ())
        found = [letter["id"] for letter in find_letters(client, places, wanted)]
        if found:
            confirmed(f"Discard {len(found):,} letters for good?", yes=yes)
        arguments = asdict(options) | {"ids": ids}
        act = act_of("dlq discard", reason=because, arguments=arguments)

        def discarded(doing: Doing) -> int:
            steps = discard_letters(client, places, found)
            return doing.counted("discarded", steps, len(found))

        done = perform(client, act, discarded)
    print_result({"discarded": done}, f"{done:,} letters discarded", as_json=as_json)


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
    options: LetterOptions,
) -> None:
    """Write letters as NDJSON, whole: with the profiles' fields. They also stay where they are."""
    with opened() as (settings, client), _created(file) as stream:
        places, wanted = options.chosen(client, settings)
        where = "" if file == "-" else str(Path(file).resolve())
        exported: set[str] = set()
        act = act_of("dlq export", arguments=asdict(options) | {EXPORTED_FILE: where})

        def written(doing: Doing) -> int:
            for letter in find_letters(client, places, wanted):
                if letter["id"] not in exported:
                    stream.write(orjson.dumps(letter) + b"\n")
                    exported.add(letter["id"])
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
            imported = import_letters(client, stream, settings, count)
            doing.count = imported.added
            return imported

        imported = perform(client, act_of("dlq import"), added)
    told = f"{imported.added:,} of {imported.lines:,} letters added"
    print_result(asdict(imported), told, as_json=as_json)
    if imported.problems:
        for each in () if as_json else imported.problems:
            mention(f"line {each['line']}: {each['reason']}")
        raise typer.Exit(1)


def _tell_left_out(plan: ReplayPlan) -> None:
    for why, count in plan.left_out.items():
        mention(f"{count:,} left out: {_LEFT_OUT[why]}")


def _rehearse(
    client: Redis,
    settings: Settings,
    places: Sequence[PartitionKeys],
    plan: ReplayPlan,
    audiences: AudienceBook,
    *,
    as_json: bool,
) -> None:
    rehearsed = list(
        rehearse_letters(client, settings, places, plan.ids, audiences, now_ms=now_ms(client))
    )
    fates = Counter(one.fate for one in rehearsed)
    if as_json:
        rows = [
            {"id": r.name, "fate": r.fate, "reason": r.reason, "message": r.safe_message}
            for r in rehearsed
        ]
        fate_counts = {f"would_be_{fate}": fates[fate] for fate in _FATES}
        print_json({**fate_counts, "left_out": dict(plan.left_out), "letters": rows})
        return
    _tell_left_out(plan)
    table(
        ("letter", "would be", "reason", *text_columns("message")),
        [
            (r.name, r.fate, r.reason or "-", r.safe_message[:_MESSAGE_CHARACTERS])
            for r in rehearsed
        ],
    )
    say(", ".join(f"{fates[fate]:,} would be {fate}" for fate in _FATES))


@app.command()
def causes(*, as_json: Json = False) -> None:
    """Group dead letters by the cause of their death."""
    with opened() as (settings, client):
        found = read_causes(client, all_partitions(client, settings))
    if as_json:
        print_json([asdict(cause) | {"place": _place(settings, asdict(cause))} for cause in found])
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
                _place(settings, asdict(c)) or "-",
                c.message.removeprefix(f"{place_in(c.message)}: "),
            )
            for c in found
        ],
    )


def _place(settings: Settings, told: Mapping[str, Any]) -> str:
    """Return the line of the template that failed, or the template if the line is not known."""
    known = settings.triggers.get(told["trigger"])
    return place_in(told["message"]) or (known.template if known else "")


@app.command("list")
@spread
def list_letters(
    *,
    options: LetterOptions,
    limit: Annotated[int, typer.Option(help="Show at most this many letters.", min=1)] = _PAGE,
    page: Annotated[int, typer.Option(help="Show this page of them, counted from 1.", min=1)] = 1,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """List letters, the newest death first."""
    with opened() as (settings, client):
        places, wanted = options.chosen(client, settings)
        first = (page - 1) * limit
        letters = list(islice(find_letters(client, places, wanted), first, first + limit))
        kept = letters_kept(client, all_partitions(client, settings))
    if as_json:
        print_json([document(letter, reveal=reveal) for letter in letters])
        return
    table(
        (
            *("letter", "died", "reason", "trigger", "audience", "direction", "cause"),
            *text_columns("message"),
        ),
        [_row(letter, reveal=reveal) for letter in letters],
    )
    say(f"{len(letters):,} shown of {kept:,} letters")
    if len(letters) == limit:
        mention(f"--page {page + 1} shows more.")


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """Show one letter with all that is known; profile fields are masked."""
    with opened() as (settings, client):
        places = all_partitions(client, settings)
        letter = next(find_letters(client, places, Filter(frozenset({letter_id}))), None)
    if letter is None:
        raise UsageWrong(f"There is no letter {letter_id}; `segrelay dlq list` has the ids.")
    found = {"place": _place(settings, letter)} | document(letter, reveal=reveal)
    if as_json:
        print_json(found)
    else:
        say_fields(found)


def document(letter: StoredLetter, *, reveal: bool) -> dict[str, Any]:
    """Return a letter as it is printed as JSON."""
    return shown(letter, reveal=reveal) | {
        "time": shown_us(letter["time_us"]),
        "first_at": shown_ms(letter["first_at_ms"]),
        "last_at": shown_ms(letter["last_at_ms"]),
        "exhausted": is_exhausted(letter),
    }


def _row(letter: StoredLetter, *, reveal: bool) -> tuple[str, ...]:
    message = shown(letter, reveal=reveal)["message"]
    return (
        letter["id"],
        shown_ms(letter["last_at_ms"]),
        letter["reason"],
        letter["trigger"],
        letter["audience"],
        letter["direction"],
        letter["cause"],
        message[:_MESSAGE_CHARACTERS],
    )

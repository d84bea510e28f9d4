"""`segrelay dlq`: dead letters, why they died, and what to do with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Final

import typer

from ops.letters.masking import shown
from ops.letters.moving_commands import discard, export, import_file, replay
from ops.letters.options import LetterOptions
from ops.letters.reading import (
    Filter,
    StoredLetter,
    find_letters,
    is_exhausted,
    letters_kept,
    read_causes,
)
from ops.state.opened import opened
from ops.state.partitions import all_partitions
from ops.terminal.console import mention, print_json, say, say_fields, table
from ops.terminal.moments import shown_ms, shown_us
from ops.terminal.options import Json, Reveal, spread
from ops.terminal.tables import number_columns, text_columns
from worker.contract.settings import Settings
from worker.core.messages import place_in
from worker.errors import UsageWrong

app = typer.Typer()
app.command("replay")(replay)
app.command("discard")(discard)
app.command("export")(export)
app.command("import")(import_file)

_PAGE: Final = 100

_MESSAGE_CHARACTERS: Final = 80


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

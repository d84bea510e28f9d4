"""`segrelay dlq`: dead letters, why they died, and what to do with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Final

import orjson
import typer
from redis import Redis

from ops.cli.console import note, print_json, say, table
from ops.cli.opened import opened
from ops.letters import Filter, Letter, find_letters, is_exhausted, letters_kept, read_causes
from ops.masking import shown
from ops.moments import parse_moment_ms, shown_ms, shown_us
from ops.partitions import all_partitions, partition_count
from ops.person import person_named
from worker.contract.connection import redis_errors
from worker.contract.keys import PartitionKeys
from worker.contract.settings import Settings
from worker.contract.words import Death
from worker.errors import UsageWrong

app = typer.Typer()

_PAGE: Final = 100
_MESSAGE_CHARACTERS: Final = 80

CauseOption = Annotated[list[str] | None, typer.Option("--cause", help="Of `causes`; repeatable.")]
TriggerOption = Annotated[str, typer.Option("--trigger", help="Only of this trigger.")]
AudienceOption = Annotated[str, typer.Option("--audience", help="Only of this audience.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Only with this reason.")]
ProfileOption = Annotated[
    str, typer.Option("--profile", help="Only of this person: a value of the identity field.")
]
SinceOption = Annotated[
    str, typer.Option("--since", help="Died since: 2026-11-24T10:00:00Z, or 2h ago.")
]
UntilOption = Annotated[str, typer.Option("--until", help="Died before; as --since.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="With the profile's fields.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def causes(*, as_json: Json = False) -> None:
    """Group the letters by what they died of."""
    with opened() as (settings, client):
        found = read_causes(client, all_partitions(client, settings))
    if as_json:
        print_json([asdict(cause) for cause in found])
        return
    table(
        ("cause", "letters", "reason", "status", "trigger", "sample", "message"),
        [
            (c.cause, f"{c.count:,}", c.reason, c.status or "-", c.trigger, c.sample, c.message)
            for c in found
        ],
    )


@app.command("list")
def list_letters(
    *,
    cause: CauseOption = None,
    trigger: TriggerOption = "",
    audience: AudienceOption = "",
    reason: ReasonOption = "",
    profile: ProfileOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    limit: Annotated[int, typer.Option(help="Letters on a page.", min=1)] = _PAGE,
    page: Annotated[int, typer.Option(help="Which page, from 1.", min=1)] = 1,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """List letters, the newest death first."""
    with opened() as (settings, client):
        places, wanted = chosen(
            client,
            settings,
            cause=cause or (),
            trigger=trigger,
            audience=audience,
            reason=reason,
            profile=profile,
            since=since,
            until=until,
        )
        first = (page - 1) * limit
        letters = list(islice(find_letters(client, places, wanted), first, first + limit))
        kept = letters_kept(client, all_partitions(client, settings))
    if as_json:
        print_json([document(letter, reveal=reveal) for letter in letters])
        return
    table(
        ("letter", "died", "reason", "trigger", "audience", "direction", "cause", "message"),
        [_row(letter, reveal=reveal) for letter in letters],
    )
    say(f"{len(letters):,} shown of {kept:,} letters")
    if len(letters) == limit:
        note(f"--page {page + 1} shows more.")


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
    found = document(letter, reveal=reveal)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        say(f"{name}: {value if isinstance(value, str) else orjson.dumps(value).decode()}")


def chosen(
    client: Redis,
    settings: Settings,
    *,
    ids: Iterable[str] = (),
    cause: Iterable[str] = (),
    trigger: str = "",
    audience: str = "",
    reason: str = "",
    profile: str = "",
    since: str = "",
    until: str = "",
) -> tuple[list[PartitionKeys], Filter]:
    """Return where to look and for what.

    Raises:
        UsageWrong: A filter names what there can't be.
    """
    if reason and reason not in {known.value for known in Death}:
        known = ", ".join(death.value for death in Death)
        raise UsageWrong(f"There is no reason '{reason}': {known}.")
    places = all_partitions(client, settings)
    now_ms = _now_ms(client)
    digest = ""
    if profile:
        person = person_named(profile, settings, partition_count(client, settings))
        places = [place for place in places if place.partition == person.partition]
        digest = person.digest.hex()
    return places, Filter(
        ids=frozenset(ids),
        causes=frozenset(cause),
        trigger=trigger,
        audience=audience,
        reason=reason,
        digest=digest,
        since_ms=parse_moment_ms(since, "--since", now_ms=now_ms) if since else 0,
        until_ms=parse_moment_ms(until, "--until", now_ms=now_ms) if until else 0,
    )


def _now_ms(client: Redis) -> int:
    with redis_errors():
        clock: Any = client.time()
    seconds, micros = clock
    return int(seconds) * 1000 + int(micros) // 1000


def document(letter: Letter, *, reveal: bool) -> dict[str, Any]:
    """Return a letter as it is printed as JSON."""
    return shown(letter, reveal=reveal) | {
        "time": shown_us(letter["time_us"]),
        "first_at": shown_ms(letter["first_at_ms"]),
        "last_at": shown_ms(letter["last_at_ms"]),
        "exhausted": is_exhausted(letter),
    }


def _row(letter: Letter, *, reveal: bool) -> tuple[str, ...]:
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

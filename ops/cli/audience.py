"""`segrelay audience`: which slug an audience's id stands for, and a person's word on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, cast

import typer
from redis import Redis

from ops.cli.console import note, print_json, say, table
from ops.cli.opened import opened
from worker.contract import keys
from worker.contract.problems import did_you_mean
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.errors import UsageWrong

app = typer.Typer()

_RETRY: Final = (
    "Programs that are sending now learn of it within a minute. What was refused stays in the"
    " quarantine until `segrelay quarantine replay --reason {reason}`."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="As payloads carry it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_audiences(*, as_json: Json = False) -> None:
    """List which ids are known, their slugs, and the triggers that want them."""
    with opened() as (settings, client):
        rows = [
            {"id": audience_id, "slug": slug, "triggers": _wanting(settings, audience_id, slug)}
            for audience_id, slug in sorted(_known(client).items(), key=lambda item: item[1])
        ]
    if as_json:
        print_json(rows)
        return
    table(
        ("id", "slug", "triggers"),
        [(row["id"], row["slug"], ", ".join(row["triggers"]) or "-") for row in rows],
    )


@app.command("set")
def set_slug(
    audience_id: Id,
    slug: Annotated[str, typer.Argument(help="What holds from now on.")],
    *,
    as_json: Json = False,
) -> None:
    """Say which slug an id stands for; payloads with another one are refused.

    Nothing that was delivered under the former slug is changed.
    """
    audience_id, slug = _word("The id", audience_id), _word("The slug", slug)
    with opened() as (_, client), redis_errors():
        was = _known(client).get(audience_id, "")
        client.hset(keys.AUDIENCES, audience_id, slug)
    if as_json:
        print_json({"id": audience_id, "slug": slug, "was": was})
        return
    before = f", no longer for '{was}'" if was and was != slug else ""
    say(f"{audience_id} stands for '{slug}'{before}.")
    note(_RETRY.format(reason="audience_conflict" if was else "unknown_audience"))


@app.command()
def forget(audience_id: Id, *, as_json: Json = False) -> None:
    """Forget an id: the next payload that carries it with a slug says what it stands for."""
    with opened() as (_, client), redis_errors():
        known = _known(client)
        was = known.get(audience_id)
        if was is None:
            raise UsageWrong(_unknown(audience_id, known))
        client.hdel(keys.AUDIENCES, audience_id)
    if as_json:
        print_json({"id": audience_id, "was": was})
        return
    say(f"{audience_id} is forgotten; it stood for '{was}'.")
    note(_RETRY.format(reason="audience_conflict"))


def _known(client: Redis) -> dict[str, str]:
    with redis_errors():
        answer = cast("Mapping[bytes, bytes]", client.hgetall(keys.AUDIENCES))
    return {key.decode(): value.decode() for key, value in answer.items()}


def _wanting(settings: Settings, audience_id: str, slug: str) -> list[str]:
    return [
        trigger.name
        for trigger in settings.triggers.values()
        if {audience_id, slug} & set(trigger.audiences)
    ]


def _word(what: str, written: str) -> str:
    """Return it as payloads are read: trimmed, and never empty."""
    word = written.strip()
    if not word:
        raise UsageWrong(f"{what} is empty.")
    return word


def _unknown(audience_id: str, known: Mapping[str, str]) -> str:
    hint = did_you_mean(audience_id, known) or "no id is known yet"
    return f"No audience is known by the id {audience_id}: {hint}."

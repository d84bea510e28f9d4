"""The filters of `segrelay dlq`: which letters are meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from redis import Redis

from ops.cli.moments import parse_moment_ms
from ops.letters.reading import Filter
from ops.person.named import person_named
from ops.state.partitions import all_partitions, partition_count
from worker.contract.connection import redis_errors
from worker.contract.keys import PartitionKeys
from worker.contract.settings import Settings
from worker.contract.words import Death
from worker.errors import UsageWrong

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
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Of `list`.")]
All = Annotated[bool, typer.Option("--all", help="All letters.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="With the profile's fields.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


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
    now = now_ms(client)
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
        since_ms=parse_moment_ms(since, "--since", now_ms=now) if since else 0,
        until_ms=parse_moment_ms(until, "--until", now_ms=now) if until else 0,
    )


def now_ms(client: Redis) -> int:
    """Return now by Redis' clock."""
    with redis_errors():
        clock: Any = client.time()
    seconds, micros = clock
    return int(seconds) * 1000 + int(micros) // 1000

"""`segrelay verify`: compare what Insider holds with the ledger."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from redis import Redis

from ops.insider.read_back import list_of
from ops.insider.reader import InsiderReader
from ops.state.opened import opened
from ops.state.partitions import all_partitions
from ops.terminal.console import mention, print_json, progress, say, table
from ops.terminal.moments import parse_seconds
from ops.terminal.options import Json
from ops.terminal.tables import text_columns
from ops.verify.verification import Delivered, Verified, Verifier, read_reached, sampled
from worker.contract.redis.clock import now_ms
from worker.contract.settings import Destination, Settings
from worker.errors import UsageWrong

DEFAULT_SAMPLE: Final = 100
_SHOWN: Final = 100


def verify(
    *,
    sample: Annotated[
        int, typer.Option(help="How many people to read back.", min=1)
    ] = DEFAULT_SAMPLE,
    destination: Annotated[str, typer.Option(help="Only people of this destination.")] = "",
    older_than: Annotated[
        str, typer.Option(help="Only what was delivered longer ago: Insider shows a write late.")
    ] = "30m",
    again_after: Annotated[
        str, typer.Option(help="Read a difference again after this time.")
    ] = "10s",
    as_json: Json = False,
) -> None:
    """Read people back from Insider, and compare their audiences with the ledger.

    They are chosen at random from everybody to whom something was delivered; where these are many,
    from an even sample of them. The exit code is 1 if something differs. At most 900 people are
    read a minute.
    """
    older_ms = round(1000 * parse_seconds(older_than, "--older-than"))
    again_seconds = parse_seconds(again_after, "--again-after")
    with opened() as (settings, client):
        until_ms = now_ms(client) - older_ms
        total = Verified()
        candidates = about = 0
        for one in _destinations(settings, destination):
            places = all_partitions(client, settings, [one.name])
            reached = read_reached(client, places, until_ms=until_ms)
            candidates += len(reached.people)
            about += reached.about
            people = sampled(reached.people, sample, random.SystemRandom())
            with progress(f"read back from {one.name}", len(people)) as shown:
                steps = _verified(
                    client, settings, one, people, until_ms=until_ms, again_seconds=again_seconds
                )
                for step in steps:
                    total.add(step)
                    shown.advance(step.profiles)
    if as_json:
        print_json(_document(total, candidates, about))
    else:
        _tell(total, candidates, about, older_than)
    if total.differences:
        raise typer.Exit(1)


def _destinations(settings: Settings, name: str) -> list[Destination]:
    found = [
        destination
        for destination in settings.destinations.values()
        if destination.api == "insider" and name in ("", destination.name)
    ]
    if not found:
        raise UsageWrong(
            f"There is no destination '{name}' of Insider's API."
            if name
            else "No destination is of Insider's API: there is nothing to read back."
        )
    return found


def _verified(
    client: Redis,
    settings: Settings,
    destination: Destination,
    people: Sequence[Delivered],
    *,
    until_ms: int,
    again_seconds: float,
) -> Iterator[Verified]:
    if not people:
        return
    lists = {
        trigger.name: list_of(settings, trigger)
        for trigger in settings.triggers.values()
        if trigger.destination == destination.name
    }
    with InsiderReader(settings, destination) as reader:
        verifier = Verifier(
            client, reader, lists, until_us=1000 * until_ms, again_seconds=again_seconds
        )
        yield from verifier.verify(people)


def _document(total: Verified, candidates: int, about: int) -> dict[str, Any]:
    return {
        "people": about,
        "candidates": candidates,
        "candidates_are": "everybody" if candidates == about else "an even sample",
        "profiles": total.profiles,
        "memberships": total.memberships,
        "differences": [asdict(difference) for difference in total.differences],
    }


def _tell(total: Verified, candidates: int, about: int, older_than: str) -> None:
    if not candidates:
        mention(f"There is nobody to whom the last delivery was made longer ago than {older_than}.")
    elif candidates < about:
        mention(f"They were chosen from an even sample: {candidates:,} of about {about:,} people.")
    say(
        f"{total.profiles:,} of {about:,} people read back, {total.memberships:,} memberships"
        f" compared, {len(total.differences):,} differ"
    )
    if total.differences:
        table(
            ("destination", "profile", "audience", "attribute", *text_columns("expected", "found")),
            [
                (d.destination, d.profile, d.audience, d.attribute, d.expected, d.found)
                for d in total.differences[:_SHOWN]
            ],
        )
        mention("`segrelay why PROFILE` tells all that is known of one of them.")
        mention(
            "A list that stays empty for everybody: is the attribute defined in Insider's panel?"
            " `segrelay config check --live` tells."
        )

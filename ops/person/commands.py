"""`segrelay erase`: forget a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from segrelay.ops.insider.reader import ANONYMIZED_A_MINUTE, InsiderIdentities
from segrelay.ops.person.erasing import Erasing, rewrite_files
from segrelay.ops.state.acts import Asks, Doing, perform
from segrelay.ops.state.person import key_named
from segrelay.ops.terminal.frame import Result
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import UsageWrong

Identifier = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="What the identity is at Insider: email, phone_number, uuid or custom.NAME; by default"
        " its own name.",
    ),
]


def erase(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The identity of the person.")],
    *,
    anonymize: Annotated[
        bool, typer.Option("--anonymize", help="Make the person anonymous at Insider, too.")
    ] = False,
    identifier: Identifier = "",
    relay: Asks,
) -> Result:
    """Erase a person from Redis: what waits, the ledger, letters, quarantine, and sync members.

    The receipt has counts and a digest, and no data. At Insider the profile stays, unless
    --anonymize lets Insider remove what is personal in it; a whole profile is never deleted. What
    is accepted afterwards is delivered as that of a new person: erase the person at the source
    first. An address of earlier is a person of its own: erase it as well.
    """
    client, settings = relay.client, relay.settings
    with ExitStack() as stack:
        key = key_named(name, settings)
        who = _identifier(settings, identifier, key) if anonymize else None
        relay.confirm("Erase this person from Redis for good?")
        insiders = {
            each: stack.enter_context(
                InsiderIdentities(settings, destination, a_minute=ANONYMIZED_A_MINUTE)
            )
            for each, destination in settings.destinations.items()
            if who and destination.api == "insider"
        }
        said: dict[str, str] = {}

        def anonymized() -> None:
            for each, insider in insiders.items():
                said[each] = insider.anonymize(who or {}) or "anonymized"

        erasing = Erasing(client, settings, key, anonymized)

        def erased(doing: Doing) -> tuple[bool, list[str]]:
            erasing.run()
            doing.count = erasing.counts.total()
            return rewrite_files(client), erasing.files()

        is_rewritten, files = perform(client, relay.act(), erased)
    counts = dict(sorted(erasing.counts.items()))
    return Result(
        {
            "erased": counts,
            "digest": erasing.digest.hex(),
            "insider": said,
            "files_rewritten": is_rewritten,
            "streams_too_long": erasing.too_long,
            "damaged": dict(+erasing.damaged),
            "exported_files": files,
        },
        f"erased the digest {erasing.digest.hex()}",
        *(f"  {what}: {count:,}" for what, count in counts.items() if count),
        *(f"  {destination}: {answer}" for destination, answer in said.items()),
        notes=_what_remains(files, erasing.too_long, +erasing.damaged, is_rewritten=is_rewritten),
        exit_code=1 if any(answer != "anonymized" for answer in said.values()) else 0,
    )


def _what_remains(
    files: Sequence[str], too_long: int, damaged: Mapping[str, int], *, is_rewritten: bool
) -> Iterator[str]:
    """Yield where the person may still be."""
    if not is_rewritten:
        yield "Redis' own file still has it: this user may not run BGREWRITEAOF, so have it run."
    if too_long:
        yield (
            f"In {plural(too_long, 'stream')} too much waits to write them anew: Redis'"
            " memory and files keep bytes of deleted entries. Run this again once less waits."
        )
    for where, count in sorted(damaged.items()):
        yield (
            f"{where}: {plural(count, 'record')} can't be read, being damaged, so nobody knows"
            " whom they are about: they stay."
        )
    for file in files:
        yield f"{file} was exported and still has the person: delete it."


def _identifier(settings: Settings, named: str, profile_key: str) -> Mapping[str, Any]:
    """Return Insider's identifier of a person: by its kind, if one was named."""
    kind = named or settings.delivery.identity
    outer, _, name = kind.partition(".")
    if kind not in ("email", "phone_number", "uuid") and not (outer == "custom" and name):
        raise UsageWrong(
            f"'{kind}' is no identifier of Insider: name the one that your templates send with"
            " --identifier email, phone_number, uuid or custom.NAME."
        )
    value = profile_key.partition(":")[2]
    return {"custom": {name: value}} if name else {kind: value}

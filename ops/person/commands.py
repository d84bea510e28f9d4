"""`segrelay rename person` and `segrelay erase`: who has another identity, or is forgotten."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from segrelay.ops.insider.reader import ANONYMIZED_A_MINUTE, RENAMES_A_MINUTE, InsiderIdentities
from segrelay.ops.person.erasing import Erasing, rewrite_files
from segrelay.ops.person.renaming import AT_ONCE, IdentityChange, PersonRenaming, Receipt
from segrelay.ops.state.acts import Acts, Asks, Doing, perform
from segrelay.ops.state.opened import insist
from segrelay.ops.state.person import key_named
from segrelay.ops.terminal.console import progress
from segrelay.ops.terminal.frame import Result
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.settings import Settings
from segrelay.worker.destinations.insider.fields import identifiers
from segrelay.worker.errors import UsageWrong

InsiderIdentifier = Callable[[str], Mapping[str, Any]]
"""A function that returns Insider's identifier for the key of a profile."""
_COLUMNS: Final = 2
_HEADERS: Final = frozenset({"old", "former", "from", "new", "to"})
_SHOWN: Final = 20

Identifier = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="What the identity is at Insider: email, phone_number, uuid or custom.NAME; by default"
        " its own name.",
    ),
]


def rename(
    old: Annotated[str, typer.Argument(metavar="[OLD", help="The identity until now.")] = "",
    new: Annotated[str, typer.Argument(metavar="NEW]", help="The identity from now on.")] = "",
    *,
    file: Annotated[
        Path | None, typer.Option(metavar="CSV", help="A file of former and new identities.")
    ] = None,
    identifier: Identifier = "",
    rate: Annotated[
        float, typer.Option(metavar="N", min=1, help="Requests a minute to Insider at most.")
    ] = RENAMES_A_MINUTE,
    relay: Acts,
) -> Result:
    """Give people another identity, at Insider and in Redis.

    The ledger, what waits, letters and sync members follow; what still comes under the former
    identity goes to the new one. A command that was stopped is given again: what is done stays
    done. Exits with 1 if Insider refused somebody, who then stays as they were.
    """
    if bool(file) == bool(old and new) or (file and old):
        raise UsageWrong("Name OLD and NEW, or a file with --file.")
    client, settings = relay.client, relay.settings
    with ExitStack() as stack:
        kind = _kind_of(settings, identifier)
        rows = [(0, old, new)] if file is None else _rows(file)
        changes = list(_changes(settings, kind, rows))
        identities = _insiders(settings, stack, rate)
        claim(client, settings)
        renaming = PersonRenaming(client, settings, identities, kind)

        def rename_all(doing: Doing) -> list[Receipt]:
            receipts: list[Receipt] = []
            with progress("people renamed", len(changes)) as shown:
                for group in _groups(changes):
                    receipts += insist(partial(renaming.run, group))
                    doing.count = len(receipts)
                    shown.advance(len(group))
            return receipts

        receipts = perform(client, relay.act(file.name if file else ""), rename_all)
    return _renamed(receipts)


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

    A person who was renamed is erased under all identities, whichever is named. The receipt has
    counts and digests, and no data. At Insider the profile stays, unless --anonymize lets Insider
    remove what is personal in it; a whole profile is never deleted. What is accepted afterwards is
    delivered as that of a new person: erase the person at the source first.
    """
    client, settings = relay.client, relay.settings
    with ExitStack() as stack:
        key = key_named(name, settings)
        kind = _kind_of(settings, identifier) if anonymize else None
        relay.confirm("Erase this person from Redis for good?")
        insiders = _insiders(settings, stack, ANONYMIZED_A_MINUTE) if kind else {}
        said: dict[str, str] = {}

        def anonymized(profile_keys: Sequence[str]) -> None:
            for each, insider in insiders.items():
                said[each] = _anonymize(insider, list(map(kind, profile_keys))) if kind else ""

        erasing = Erasing(client, settings, key, anonymized)

        def erased(doing: Doing) -> tuple[list[str], bool, list[str]]:
            digests = erasing.run()
            doing.count = erasing.counts.total()
            return digests, rewrite_files(client), erasing.files()

        digests, is_rewritten, files = perform(client, relay.act(), erased)
    counts = dict(sorted(erasing.counts.items()))
    return Result(
        {
            "erased": counts,
            "digests": digests,
            "insider": said,
            "files_rewritten": is_rewritten,
            "streams_too_long": erasing.too_long,
            "damaged": dict(+erasing.damaged),
            "exported_files": files,
        },
        f"erased the digests {', '.join(digests)}",
        *(f"  {what}: {count:,}" for what, count in counts.items() if count),
        *(f"  {destination}: {answer}" for destination, answer in said.items()),
        notes=_what_remains(files, erasing.too_long, +erasing.damaged, is_rewritten=is_rewritten),
        exit_code=1 if any(answer != "anonymized" for answer in said.values()) else 0,
    )


def _anonymize(insider: InsiderIdentities, names: Sequence[Mapping[str, Any]]) -> str:
    """Make a person anonymous under the first of these identifiers that Insider knows."""
    known = next(filter(insider.is_known, names), names[0])
    return insider.anonymize(known) or "anonymized"


def _insiders(settings: Settings, stack: ExitStack, rate: float) -> dict[str, InsiderIdentities]:
    return {
        name: stack.enter_context(InsiderIdentities(settings, destination, a_minute=rate))
        for name, destination in settings.destinations.items()
        if destination.api == "insider"
    }


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


def _kind_of(settings: Settings, named: str) -> InsiderIdentifier:
    """Return the function that gives Insider's identifier for the key of a profile."""
    kind = named or settings.delivery.identity
    outer, _, name = kind.partition(".")
    if kind not in ("email", "phone_number", "uuid") and not (outer == "custom" and name):
        raise UsageWrong(
            f"'{kind}' is no identifier of Insider: name the one that your templates send with"
            " --identifier email, phone_number, uuid or custom.NAME."
        )

    def identifier(profile_key: str) -> Mapping[str, Any]:
        value = profile_key.partition(":")[2]
        return {"custom": {name: value}} if name else {kind: value}

    return identifier


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the line number and both identities of each row; skip a line of column names."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                line = reader.line_num
                is_head = line == 1 and {each.strip().lower() for each in row} <= _HEADERS
                if is_head or not any(row):
                    continue
                if len(row) != _COLUMNS:
                    raise UsageWrong(
                        f"{path}:{line}: there have to be two columns, the former identity and the"
                        f" new one; here are {len(row)}."
                    )
                yield line, row[0], row[1]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageWrong(f"{path} can't be read: {error}") from error


def _changes(
    settings: Settings, kind: InsiderIdentifier, rows: Iterable[tuple[int, str, str]]
) -> Iterator[IdentityChange]:
    """Yield the identity change of each row; raise at a row that is wrong."""
    region = settings.delivery.phone_region
    for line, old, new in rows:
        try:
            change = IdentityChange(key_named(old, settings), key_named(new, settings), line)
        except UsageWrong as error:
            raise UsageWrong(f"Line {line}: {error}" if line else str(error)) from error
        if change.old == change.new:
            where = f"Line {line}: the" if line else "The"
            raise UsageWrong(f"{where} former identity and the new one are the same.")
        if not identifiers(kind(change.new), region, []):
            where = f"Line {line}: the" if line else "The"
            raise UsageWrong(
                f"{where} new identity is nothing that Insider takes as such. Nobody was renamed."
            )
        yield change


def _groups(changes: Sequence[IdentityChange]) -> Iterator[list[IdentityChange]]:
    """Yield the changes in their order, in groups that name nobody twice."""
    group: list[IdentityChange] = []
    named: set[str] = set()
    for change in changes:
        if len(group) == AT_ONCE or named & {change.old, change.new}:
            yield group
            group, named = [], set()
        group.append(change)
        named |= {change.old, change.new}
    if group:
        yield group


def _renamed(receipts: Sequence[Receipt]) -> Result:
    counts = {
        outcome: sum(receipt.outcome == outcome for receipt in receipts)
        for outcome in ("renamed", "already", "refused")
    }
    refused = [receipt for receipt in receipts if receipt.outcome == "refused"]
    notes = [
        f"line {one.change.line}: {one.message}" if one.change.line else one.message
        for one in refused[:_SHOWN]
    ]
    if len(refused) > _SHOWN:
        notes.append(f"and {len(refused) - _SHOWN:,} more; --json names all")
    return Result(
        {**counts, "changes": [_row(receipt) for receipt in receipts]},
        f"{counts['renamed']:,} people renamed, {counts['already']:,} were already,"
        f" {counts['refused']:,} refused",
        notes=notes,
        exit_code=1 if refused else 0,
    )


def _row(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as a document, with the line and digests in place of identities."""
    return {
        "line": receipt.change.line,
        "outcome": receipt.outcome,
        "message": receipt.message,
        "old": digest_of(receipt.change.old).hex(),
        "new": digest_of(receipt.change.new).hex(),
    }

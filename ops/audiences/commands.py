"""`segrelay audience`: list and retire audiences, and set the slugs of ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Annotated, Any, Final

import typer

from segrelay.ops.audiences.membership import (
    AudienceCounts,
    Person,
    count_all,
    known_ids,
    named_in,
    remembered,
    row_of,
    slugs,
    standings,
    waiting_in,
)
from segrelay.ops.audiences.retiring import (
    LeavingPeople,
    by_digest,
    count_leaving,
    exit_event,
    exits_by_destination,
    find_leaving,
    publish_all,
    syncs_of,
)
from segrelay.ops.state.acts import Acts, Asks, Doing, Reads, perform
from segrelay.ops.state.opened import insist
from segrelay.ops.terminal.console import counted, mention, progress
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.tables import TableColumns, count_columns, number_columns, text_columns
from segrelay.producer.publish import Publisher
from segrelay.worker.contract import keys
from segrelay.worker.contract.printable import did_you_mean, plural
from segrelay.worker.contract.redis.acts import carry_out
from segrelay.worker.errors import UsageWrong

app = typer.Typer(help="See or retire audiences, and say what ids stand for.")

_RETRY: Final = (
    "Programs that are sending now learn of it within a minute. What was refused stays in the"
    " quarantine until `segrelay quarantine replay --reason {kind}`."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The id, as payloads carry it.")]
People = Annotated[
    list[str] | None,
    typer.Option(
        "--people", metavar="SOURCE", help="Who is in it: lytics:SLUG, or a file of its members."
    ),
]


@app.command("list")
def list_audiences(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what only the ledger knows.")
    ] = False,
    relay: Reads,
) -> Result:
    """List the audiences: ids, members by the ledger, entrances and exits, triggers, syncs.

    Everybody's ledger is read for it. "entered" are people who ever
    entered, "left" those whose newest event is an exit.
    """
    client, settings = relay.client, relay.settings
    counts = AudienceCounts()
    if not quick:
        with progress("ledgers read") as shown:
            counts = count_all(client, settings, shown)
    rows = [
        row_of(settings, slug, known_ids(client), counts)
        for slug in sorted(slugs(settings, client, counts))
    ]
    columns: TableColumns = (
        *text_columns("id"),
        *number_columns("members"),
        *count_columns("entered", "left"),
        "last event",
        *text_columns("triggers", "syncs"),
    )
    unreadable = (
        f"Another version wrote {plural(counts.unreadable, 'ledger')}, which can't be read."
    )
    return Result(
        {"audiences": rows, "unreadable": counts.unreadable},
        Table(("slug", *columns), [cells for row in rows for cells in _cells(row)]),
        notes=[unreadable] if counts.unreadable else (),
    )


@app.command()
def retire(
    slug: Annotated[str, typer.Argument(help="The audience that everybody leaves.")],
    *,
    people: People = None,
    relay: Asks,
) -> Result:
    """Publish an exit for everybody who is in an audience by the ledger, or whose entrance waits.

    The ledger knows people by a digest only. Their names come from the syncs of the audience, and
    from --people; nothing is published for people without a name, and then the exit code is 1.
    Whoever is named there and unknown to the ledger is taken for a member. The next run of a sync
    enters whoever is still in the audience at Lytics: take it out of the configuration then.
    """
    client, settings = relay.client, relay.settings
    publisher = Publisher(client, settings)
    exits = exits_by_destination(publisher, slug)
    named = by_digest(chain(remembered(client, settings, slug), named_in(settings, people or ())))

    def look(waiting: Mapping[bytes, Person]) -> dict[str, LeavingPeople]:
        with progress("ledgers read") as shown:
            found = standings(client, settings, slug, shown)
        return {each: find_leaving(found.get(each, {}), named, waiting) for each in exits}

    _ask(relay, slug, count_leaving(look({}).values()))
    # Whoever enters after this moment is in; who entered before it is in the ledger, or waits.
    now_us = publisher.now_us()
    leaving = look(by_digest(waiting_in(client, settings, slug)))

    def leave(doing: Doing) -> None:
        doing.count = 0
        for destination, group in leaving.items():
            found = [*group.known, *group.unknown]
            events = (exit_event(person, slug, now_us) for person in found)
            steps = publish_all(publisher, events, exits[destination])
            counted(f"published for {destination}", steps, len(found))
            doing.count += len(found)

    perform(client, relay.act(slug), leave)
    counts = count_leaving(leaving.values())
    syncs = syncs_of(client, settings, slug)
    still = (
        f"The next run of a sync enters whoever is still in '{slug}' at Lytics: take"
        f" [sync.{'], [sync.'.join(syncs)}] out of the configuration now, and restart."
    )
    return Result(
        {"audience": slug, "named": len(named), **counts},
        f"{plural(counts['published'], 'person', 'people')}: exits published",
        f"{counts['held']:,} were in it by the ledger, {counts['known']:,} of them named;"
        f" {counts['unknown']:,} were named and unknown to it",
        notes=[still] if syncs else (),
        exit_code=1 if counts["held"] > counts["known"] else 0,
    )


@app.command("set")
def set_slug(
    audience_id: Id,
    slug: Annotated[str, typer.Argument(help="The slug that the id stands for from now on.")],
    *,
    relay: Acts,
) -> Result:
    """Set the slug that an id stands for; payloads that carry the id with another slug are refused.

    Nothing that was delivered under the slug until now is changed.
    """
    audience_id, slug = _word("The id", audience_id), _word("The slug", slug)
    client = relay.client
    was = known_ids(client).get(audience_id, "")
    act = relay.act(audience_id, to=slug, was=was)
    insist(lambda: carry_out(client, act, keys.AUDIENCES, "HSET", audience_id, slug))
    before = f", no longer for '{was}'" if was and was != slug else ""
    return Result(
        {"id": audience_id, "slug": slug, "was": was},
        f"{audience_id} stands for '{slug}'{before}.",
        notes=[_RETRY.format(kind="audience_conflict" if was else "unknown_audience")],
    )


@app.command()
def forget(audience_id: Id, *, relay: Acts) -> Result:
    """Forget the slug of an id; it is learned anew from the next payload that has both."""
    client = relay.client
    known = known_ids(client)
    was = known.get(audience_id)
    if was is None:
        hint = did_you_mean(audience_id, known) or "no id is known yet"
        raise UsageWrong(f"No audience is known by the id {audience_id}: {hint}.")
    act = relay.act(audience_id, was=was)
    insist(
        lambda: carry_out(client, act, keys.AUDIENCES, "HDEL", audience_id, only_if_changed=True)
    )
    return Result(
        {"id": audience_id, "was": was},
        f"{audience_id} is forgotten; it stood for '{was}'.",
        notes=[_RETRY.format(kind="audience_conflict")],
    )


def _cells(row: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield a table row for each destination; one row if the ledger knows no destination."""
    ends = (", ".join(row["triggers"]) or "-", ", ".join(row["syncs"]) or "-")
    begins = (row["slug"], ", ".join(row["ids"]) or "-")
    if not row["destinations"]:
        yield (*begins, "-", "-", "-", "-", *ends)
    for name, found in row["destinations"].items():
        at = f" ({name})" if len(row["destinations"]) > 1 else ""
        yield (
            begins[0] + at,
            begins[1],
            found["members"],
            found["entered"],
            found["left"],
            found["last_event"] or "-",
            *ends,
        )


def _ask(relay: Asks, slug: str, counts: Mapping[str, int]) -> None:
    held, known, unknown = counts["held"], counts["known"], counts["unknown"]
    mention(f"{held:,} people are in it by the ledger, {known:,} of them are named.")
    if unknown:
        mention(f"{unknown:,} are named, and the ledger knows nothing of them: they go, too.")
    if held > known:
        mention(
            f"{held - known:,} are known by a digest only, and stay as they are: name them by"
            " --people lytics:SLUG, or by a file."
        )
    if counts["published"]:
        people = plural(counts["published"], "person", "people")
        relay.confirm(f"Publish exits from '{slug}' for {people}?")


def _word(what: str, written: str) -> str:
    """Strip the spaces around a slug or an id, as payloads are read; refuse an empty one."""
    word = written.strip()
    if not word:
        raise UsageWrong(f"{what} is empty.")
    return word

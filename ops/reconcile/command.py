"""`segrelay reconcile`: compare an audience at Lytics with the ledger and with Insider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from ops.reconcile.comparing import AudienceComparison, SampleResult
from ops.reconcile.drift import Drift, RepairEvent
from ops.state.acts import Doing, Reason, act_of, perform
from ops.state.opened import opened
from ops.terminal.console import confirmed, mention, print_json, progress, say, table
from ops.terminal.options import Json, Yes
from ops.terminal.tables import number_columns
from producer.publish import Publisher
from producer.publishing.audiences import named_audience
from producer.sources.scans import find_slug
from worker.contract.redis.acts import Act
from worker.contract.words import Direction

DEFAULT_SAMPLE: Final = 100


def reconcile(
    audience: Annotated[str, typer.Argument(metavar="AUDIENCE", help="Slug or id at Lytics.")],
    *,
    insider: Annotated[
        bool, typer.Option("--insider", help="Read a sample back from Insider too.")
    ] = False,
    sample: Annotated[
        int, typer.Option(help="How many people, of each kind, --insider reads.", min=1)
    ] = DEFAULT_SAMPLE,
    repair: Annotated[
        bool, typer.Option("--repair", help="Publish what is missing and what is stale.")
    ] = False,
    people: Annotated[
        list[str] | None,
        typer.Option(
            "--people", metavar="SOURCE", help="Who may be stale: lytics:SLUG, or a file."
        ),
    ] = None,
    yes: Yes = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Compare who is in an audience at Lytics with what was delivered.

    "missing" are people whom Lytics has in the audience and the ledger has not, "stale" the other
    way round. So are people whom a sync or --people names, and of whom neither knows. What waits is
    not in the ledger yet. Who is stale is looked up at Lytics once more before --repair publishes
    the exit. People of whom an event is newer than the scan are neither missing nor stale; how many
    of them differ is said, and is "changed_since_scan" of --json. The exit code is 1 if there is a
    difference that was not repaired.
    """
    with opened() as (settings, client):
        publisher = Publisher(client, settings)
        slug, _ = named_audience(
            publisher.audiences, audience, look_up=lambda name: find_slug(settings, name)
        )
        drift = Drift(client, settings, publisher, audience, slug, progress)
        source = drift.read_source()
        found = drift.compare(source, people or ())
        at_insider = {
            each.destination: drift.read_back(each, source, sample)
            for each in found
            if insider and settings.destinations[each.destination].api == "insider"
        }
        repaired = 0
        if repair:
            repairs = drift.repairs(source, found, at_insider.values())
            act = act_of("reconcile repair", slug, reason=reason)
            repaired = _repaired(drift, repairs, act, yes=yes)
    documents = [_document(each, at_insider.get(each.destination)) for each in found]
    if as_json:
        told = {"audience": slug, "source": len(source.members), "destinations": documents}
        print_json({**told, "repaired": repaired})
    else:
        _tell(slug, documents, repaired if repair else None)
    if not repair and any(_differs(document) for document in documents):
        raise typer.Exit(1)


def _repaired(drift: Drift, repairs: Sequence[RepairEvent], act: Act, *, yes: bool) -> int:
    if not repairs:
        return 0
    drift.check_wanted(repairs)
    enters = sum(event.direction is Direction.ENTER for event, _ in repairs)
    exits = len(repairs) - enters
    confirmed(f"Publish {enters:,} entrances and {exits:,} exits of '{drift.slug}'?", yes=yes)

    def publish(doing: Doing) -> int:
        doing.count = drift.publish(repairs)
        return doing.count

    return perform(drift.client, act, publish)


def _document(compared: AudienceComparison, read: SampleResult | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "destination": compared.destination,
        "ledger": compared.ledger,
        "both": compared.both,
        "missing": len(compared.missing),
        "stale": len(compared.stale),
        "stale_unnamed": len(compared.stale) - len(compared.named_stale),
        "changed_since_scan": compared.changed,
    }
    if read is not None:
        document["insider"] = {
            "read": read.read,
            "missing": sum(kind == "missing" for kind, _ in read.wrong),
            "stale": sum(kind == "stale" for kind, _ in read.wrong),
            "unknown": read.unknown,
        }
    return document


def _differs(document: dict[str, Any]) -> bool:
    at_insider = document.get("insider", {})
    return bool(
        document["missing"]
        or document["stale"]
        or at_insider.get("missing")
        or at_insider.get("stale")
    )


def _tell(slug: str, documents: Sequence[dict[str, Any]], repaired: int | None) -> None:
    table(
        ("destination", *number_columns("in both", "missing", "stale")),
        [(each["destination"], each["both"], each["missing"], each["stale"]) for each in documents],
    )
    for each in documents:
        if each["stale_unnamed"]:
            mention(
                f"{each['stale_unnamed']:,} stale people of '{slug}' are known by a digest only:"
                " --people says who they are."
            )
        if each["changed_since_scan"]:
            mention(
                f"{each['destination']}: {each['changed_since_scan']:,} people of '{slug}' differ,"
                " but an event about them is newer than the scan: they were neither counted nor"
                " repaired. Compare again in a minute to see whether they still differ."
            )
        if "insider" in each:
            read = each["insider"]
            say(
                f"{each['destination']}: {read['read']:,} people read back,"
                f" {read['missing']:,} are missing at Insider, {read['stale']:,} are stale there"
            )
    if repaired is not None:
        say(f"{repaired:,} events published")

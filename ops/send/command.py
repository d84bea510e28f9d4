"""`segrelay send`: put the payloads of a file into Redis."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from segrelay.ops.send.sending import Deadline, Sending, seconds_of, wait_for_deliveries
from segrelay.ops.state.opened import opened as opened_redis
from segrelay.ops.terminal.console import mention, print_json, progress, say
from segrelay.ops.terminal.interrupts import interruptible_between_steps
from segrelay.ops.terminal.options import DryRun, Json, OlderThanLedger
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.publishing.published import Published, PublishOptions
from segrelay.producer.sources.blocks import block_times
from segrelay.producer.sources.files import batches, opened
from segrelay.producer.sources.reading import read_payloads
from segrelay.worker.contract.printable import plural, printable
from segrelay.worker.contract.redis.connection import resolve_url
from segrelay.worker.contract.redis.url import patience_seconds
from segrelay.worker.contract.words import LIVE
from segrelay.worker.errors import SourceDamaged, UsageWrong

_PROBLEMS_SHOWN: Final = 10


def send(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-", help="A file of JSON lines or one JSON document; - reads a pipe."
        ),
    ],
    *,
    lane: Annotated[str, typer.Option(help="The lane: live or backfill.")] = LIVE,
    job: Annotated[
        str,
        typer.Option(
            help="Name of a job, which has a lane of its own of the backfill kind. Sending the "
            "same file again goes on where it was interrupted."
        ),
    ] = "",
    hooks: Annotated[
        bool | None,
        typer.Option(
            "--hooks/--no-hooks",
            help="Whether Insider may start journeys. By default it may for the live lane, and "
            "not for backfill and jobs. A trigger's skip_hook overrules it.",
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until all that was sent, or all of the job, is settled."),
    ] = False,
    timeout: Annotated[
        str,
        typer.Option(
            help="Give up this long after the start, whatever is being waited for: Redis, room in "
            "it, or (with --wait) deliveries. For example 90s or 15m.",
            metavar="DURATION",
        ),
    ] = "",
    older_than_ledger: OlderThanLedger = False,
    as_json: Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any event was refused.")
    ] = False,
) -> None:
    """Put the payloads of a file into Redis, from where the workers deliver them.

    Exits with 1 if nothing was accepted, if the file is cut off, if events are older than what the
    ledger remembers, or if --timeout has passed.
    """
    deadline = Deadline(seconds_of(timeout))
    options = PublishOptions(
        lane,
        job,
        skip_hook=None if hooks is None else not hooks,
        older_than_ledger=older_than_ledger,
    ).resolved()
    if dry_run and wait:
        raise UsageWrong("--dry-run sends nothing that --wait could wait for.")
    damages: list[str] = []
    with (
        interruptible_between_steps() as interruption,
        opened(source) as file,
        opened_redis(patient=False) as (settings, client),
    ):
        times = block_times(settings.redis.partitions)
        sending = Sending(
            Publisher(client, settings, dry_run=dry_run),
            source,
            options,
            file.digest(routing_digest(settings), times) if job and not dry_run else "",
            dry_run,
            patience_seconds(resolve_url(settings.redis)),
            deadline,
            interruption,
        )
        payloads = read_payloads(file.lines, on_damage=damages.append)
        parts = batches(
            payloads, is_live=file.is_live, times=times, stops=lambda: interruption.is_requested
        )
        with progress("sent") as shown:
            sending.run(parts, shown.advance, is_live=file.is_live)
        published = sending.published
        _report(sending, job, as_json=as_json)
        if wait and not wait_for_deliveries(
            client, settings, job or published, deadline, interruption
        ):
            raise typer.Exit(1)
    if damages:
        raise SourceDamaged(
            f"{source} is damaged: {damages[0]}. What could be read of it "
            f"{'would be' if dry_run else 'was'} sent; send the whole file: events that are there "
            "twice are delivered once."
        )
    if _failed(published, strict=strict):
        raise typer.Exit(1)


def _failed(published: Published, *, strict: bool) -> bool:
    """Say whether nothing was accepted, or something was refused that may not be."""
    nothing = published.payloads and not (published.accepted or published.repeated)
    return bool(nothing or published.forgotten or (strict and published.refused))


def _report(sending: Sending, job: str, *, as_json: bool) -> None:
    published = sending.published
    if as_json:
        print_json(published.document() | {"dry_run": sending.dry_run})
    else:
        _say_summary(published, dry_run=sending.dry_run)
    if not published.payloads:
        mention(f"{sending.source} holds no payloads.")
    if published.repeated:
        mention(
            f"In Redis already: {plural(published.repeated, 'delivery', 'deliveries')},"
            f" from an earlier attempt of "
            f"job '{job}' with the same file."
        )
    if published.as_text:
        fields = ", ".join(
            f"{name} ({plural(n, 'event')})" for name, n in published.as_text.items()
        )
        mention(f"Integers above 2^53 are carried as text, in {printable(fields)}.")
    if published.forgotten:
        mention(
            f"Older than what the ledger remembers: {plural(published.forgotten, 'event')} "
            "(delivery.ledger_retention): who left after that may be forgotten. If they are still "
            "true: "
            + (
                "--older-than-ledger accepts them."
                if sending.dry_run
                else "`segrelay quarantine replay --kind older_than_ledger --force`."
            )
        )
    if (published.unmatched or published.refused) and not sending.dry_run:
        mention("What was refused or unmatched is kept: `segrelay quarantine list`.")


def _say_summary(published: Published, *, dry_run: bool) -> None:
    accepted = "would be accepted" if dry_run else "accepted"
    say(
        f"{plural(published.payloads, 'payload')}, {plural(published.events, 'event')}:"
        f" {plural(published.accepted, 'delivery', 'deliveries')} {accepted},"
        f" {published.unmatched:,} unmatched, {published.refused:,} refused"
    )
    journeys = _journeys(published)
    if journeys:
        say(journeys)
    if dry_run:
        mention("This was a dry run: nothing was written.")
    for problem in published.problems[:_PROBLEMS_SHOWN]:
        message = printable(problem.message)
        mention(f"line {problem.line}[{problem.index}]: {problem.reason}: {message}")
    if published.refused > _PROBLEMS_SHOWN:
        mention(f"… and {published.refused - _PROBLEMS_SHOWN:,} more problems")


def _journeys(published: Published) -> str:
    """Say for what Insider may start no journeys; "" = it may start them as always."""
    total, without = published.accepted + published.repeated, published.without_hook
    if not without:
        return ""
    which = "these" if without == total else f"{without:,} of {total:,} of these"
    return f"Insider is told to start no journeys for {which}; --hooks would let it."

"""`segrelay send`: put the payloads of a file into Redis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Final

import typer

from segrelay.ops.send.sending import (
    Deadline,
    DeliveryWait,
    Sending,
    Target,
    hindrances,
    triggers_of,
    waiting_of,
    waiting_of_job,
)
from segrelay.ops.state.opened import opened as opened_redis
from segrelay.ops.terminal.console import mention, plural, print_json, progress, say
from segrelay.ops.terminal.interrupts import Interruption, interruptible_between_steps
from segrelay.ops.terminal.options import DryRun, Json, OlderThanLedger
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.publishing.published import Published, PublishOptions
from segrelay.producer.sources.blocks import block_times
from segrelay.producer.sources.files import OpenedSource, batches, opened
from segrelay.producer.sources.reading import read_payloads
from segrelay.worker.contract.printable import printable
from segrelay.worker.contract.redis.connection import resolve_url
from segrelay.worker.contract.redis.url import patience_seconds
from segrelay.worker.contract.settings.values import parse_duration
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
    deadline = Deadline(_seconds(timeout))
    into = PublishOptions(lane, job).resolved().lane
    if dry_run and wait:
        raise UsageWrong("--dry-run sends nothing that --wait could wait for.")
    skip_hook = None if hooks is None else not hooks
    with (
        interruptible_between_steps() as interruption,
        opened(source) as file,
        opened_redis(patient=False) as (settings, client),
    ):
        publisher = Publisher(client, settings, dry_run=dry_run)
        times = block_times(settings.redis.partitions)
        digest = file.digest(routing_digest(settings), times) if job and not dry_run else ""
        away_seconds = patience_seconds(resolve_url(settings.redis))
        target = Target(
            publisher,
            source,
            into,
            job,
            digest,
            skip_hook,
            dry_run,
            away_seconds,
            older_than_ledger,
        )
        sending = Sending(target, deadline, interruption, mention)
        damages = _send(file, sending, interruption, times)
        published = sending.published
        _report(published, target, as_json=as_json)
        waiting = (
            partial(waiting_of_job, client, settings, job)
            if job
            else partial(waiting_of, client, published)
        )
        triggers = triggers_of(published.entries)
        hindered = partial(hindrances, client, settings, triggers, job)
        watch = DeliveryWait(waiting, hindered, deadline, interruption, mention, away_seconds)
        if wait and not watch.until_settled():
            raise typer.Exit(1)
    if damages:
        raise SourceDamaged(
            f"{source} is damaged: {damages[0]}. What could be read of it "
            f"{'would be' if dry_run else 'was'} sent; send the whole file: events that are there "
            "twice are delivered once."
        )
    if _failed(published, strict=strict):
        raise typer.Exit(1)


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    except ValueError as error:
        raise UsageWrong(f"--timeout: {error}; write 90s or 15m.") from error


def _send(
    file: OpenedSource, sending: Sending, interruption: Interruption, times: int
) -> Sequence[str]:
    """Send a source; return why it is not whole, if it is not."""
    damages: list[str] = []
    payloads = read_payloads(file.lines, on_damage=damages.append)
    parts = batches(
        payloads, is_live=file.is_live, times=times, stops=lambda: interruption.is_requested
    )
    with progress("sent") as shown:
        sending.run(parts, shown.advance, is_live=file.is_live)
    return damages


def _failed(published: Published, *, strict: bool) -> bool:
    """Say whether nothing was accepted, or something was refused that may not be."""
    nothing = published.payloads and not (published.accepted or published.repeated)
    return bool(nothing or published.forgotten or (strict and published.refused))


def _report(published: Published, target: Target, *, as_json: bool) -> None:
    if as_json:
        print_json(published.document() | {"dry_run": target.dry_run})
    else:
        _say_summary(published, target)
    if not published.payloads:
        mention(f"{target.name} holds no payloads.")
    if published.repeated:
        mention(
            f"{published.repeated:,} deliveries were in Redis already, from an earlier attempt of "
            f"job '{target.job}' with the same file."
        )
    if published.as_text:
        fields = ", ".join(f"{name} ({n:,} events)" for name, n in published.as_text.items())
        mention(f"Integers above 2^53 are carried as text, in {printable(fields)}.")
    if published.forgotten:
        mention(
            f"{published.forgotten:,} events are older than what the ledger remembers "
            "(delivery.ledger_retention): who left after that may be forgotten. If they are still "
            "true: "
            + (
                "--older-than-ledger accepts them."
                if target.dry_run
                else "`segrelay quarantine replay --kind older_than_ledger --force`."
            )
        )
    if (published.unmatched or published.refused) and not target.dry_run:
        mention("What was refused or unmatched is kept: `segrelay quarantine list`.")


def _say_summary(published: Published, target: Target) -> None:
    accepted = "would be accepted" if target.dry_run else "accepted"
    say(
        f"{plural(published.payloads, 'payload')}, {plural(published.events, 'event')}:"
        f" {plural(published.accepted, 'delivery', 'deliveries')} {accepted},"
        f" {published.unmatched:,} unmatched, {published.refused:,} refused"
    )
    if published.accepted or published.repeated:
        say(_journeys(published))
    if target.dry_run:
        mention("This was a dry run: nothing was written.")
    for problem in published.problems[:_PROBLEMS_SHOWN]:
        message = printable(problem.message)
        mention(f"line {problem.line}[{problem.index}]: {problem.reason}: {message}")
    if published.refused > _PROBLEMS_SHOWN:
        mention(f"… and {published.refused - _PROBLEMS_SHOWN:,} more problems")


def _journeys(published: Published) -> str:
    """Return a line that says whether Insider may start journeys."""
    total, without = published.accepted + published.repeated, published.without_hook
    if not without:
        return "journeys: Insider may start them"
    if without == total:
        return "journeys: Insider is told not to start any (--hooks lets it)"
    return f"journeys: Insider is told not to start any for {without:,} of {total:,} deliveries"

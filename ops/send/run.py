"""The run of `segrelay send`: it opens the source, sends it, waits, and prints the counts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import typer

from segrelay.ops.send.drafting import BatchDrafter, Choice, drafter_of, start_drafting
from segrelay.ops.send.sending import Deadline, Sending, seconds_of, wait_for_deliveries
from segrelay.ops.state.opened import opened as opened_redis
from segrelay.ops.terminal.console import mention, print_json, progress, say
from segrelay.ops.terminal.interrupts import interruptible_between_steps
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.publishing.published import Published, PublishOptions
from segrelay.producer.sources.blocks import block_times
from segrelay.producer.sources.files import opened
from segrelay.worker.contract.printable import plural, printable
from segrelay.worker.contract.redis.connection import resolve_url
from segrelay.worker.contract.redis.url import patience_seconds
from segrelay.worker.errors import SourceDamaged, UsageWrong

_PROBLEMS_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Order:
    """The words of the command line; see `segrelay.ops.send.command`.

    Args:
        beside: True if another process reads and drafts the source, which is a large file.
    """

    source: str
    lane: str
    job: str
    hooks: bool | None
    timeout: str
    dry_run: bool
    wait: bool
    older_than_ledger: bool
    as_json: bool
    strict: bool
    beside: bool


def run(order: Order) -> None:
    """Send a source and print the counts; raise `typer.Exit` if the command is to exit with 1."""
    deadline = Deadline(seconds_of(order.timeout))
    options = PublishOptions(
        order.lane,
        order.job,
        skip_hook=None if order.hooks is None else not order.hooks,
        older_than_ledger=order.older_than_ledger,
    ).resolved()
    if order.dry_run and order.wait:
        raise UsageWrong("--dry-run sends nothing that --wait could wait for.")
    drafter: BatchDrafter
    with (
        interruptible_between_steps() as interruption,
        opened(order.source) as file,
        opened_redis(patient=False) as (settings, client),
    ):

        def stops() -> bool:
            return interruption.is_requested

        publisher = Publisher(client, settings, dry_run=order.dry_run)
        times = block_times(settings.redis.partitions)
        resumes = order.job and not order.dry_run
        digest = file.digest(routing_digest(settings), times) if resumes else ""
        choice = Choice(order.source, options, digest, order.dry_run)
        away_seconds = patience_seconds(resolve_url(settings.redis))
        sending = Sending(publisher, choice, away_seconds, deadline, interruption)
        with ExitStack() as ending:
            if order.beside and file.file_id:
                beside = start_drafting(settings.source, choice, file, stops)
                drafter = ending.enter_context(beside)
            else:
                drafter = drafter_of(file, publisher, choice, times, stops)
            sending.run(drafter, ending.enter_context(progress("sent")).advance)
        published, damages = sending.published, drafter.damages
        _report(sending, order.job, as_json=order.as_json)
        if order.wait and not wait_for_deliveries(
            client, settings, order.job or published, deadline, interruption
        ):
            raise typer.Exit(1)
    if damages:
        raise SourceDamaged(
            f"{order.source} is damaged: {damages[0]}. What could be read of it "
            f"{'would be' if order.dry_run else 'was'} sent; send the whole file: events that are"
            " there twice are delivered once."
        )
    if _failed(published, strict=order.strict):
        raise typer.Exit(1)


def _failed(published: Published, *, strict: bool) -> bool:
    """Say whether nothing was accepted, or something was refused that may not be."""
    nothing = published.payloads and not (published.accepted or published.repeated)
    return bool(nothing or published.forgotten or (strict and published.refused))


def _report(sending: Sending, job: str, *, as_json: bool) -> None:
    published = sending.published
    if as_json:
        print_json(published.document() | {"dry_run": sending.choice.dry_run})
    else:
        _say_summary(published, dry_run=sending.choice.dry_run)
    if not published.payloads:
        mention(f"{sending.choice.source} holds no payloads.")
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
                if sending.choice.dry_run
                else "`segrelay quarantine replay --kind older_than_ledger --force`."
            )
        )
    if (published.unmatched or published.refused) and not sending.choice.dry_run:
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
    """Return a sentence on events that start no journeys at Insider; "" = all of them may."""
    total, without = published.accepted + published.repeated, published.without_hook
    if not without:
        return ""
    which = "these" if without == total else f"{without:,} of {total:,} of these"
    return f"Insider is told to start no journeys for {which}; --hooks would let it."

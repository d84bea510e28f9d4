"""The run of `segrelay send`: it opens the source, sends it, waits, and prints the counts."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Final

import typer

from segrelay.ops.send.drafting import BatchDrafter, Choice, drafter_of, start_drafting
from segrelay.ops.send.sending import (
    Deadline,
    Sending,
    is_worked,
    seconds_of,
    wait_for_deliveries,
)
from segrelay.ops.state.opened import opened as opened_redis
from segrelay.ops.terminal.console import mention, print_result, progress, say
from segrelay.ops.terminal.interrupts import interruptible_between_steps
from segrelay.ops.terminal.options import SendOptions
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.publishing.published import Published, PublishOptions
from segrelay.producer.sources.blocks import block_times
from segrelay.producer.sources.files import opened
from segrelay.worker.contract.printable import plural, printable
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import resolve_url
from segrelay.worker.contract.redis.url import patience_seconds
from segrelay.worker.errors import RedisUnavailable, SourceDamaged, UsageWrong

_PROBLEMS_SHOWN: Final = 10


def run(source: str, order: SendOptions, *, beside: bool) -> None:
    """Send a source and print the counts; raise `typer.Exit` if the command is to exit with 1.

    Args:
        source: The file, or - for a pipe.
        order: The options of the command line.
        beside: True if another process reads and drafts the source, which is a large file.
    """
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
        opened(source) as file,
        opened_redis(patient=False) as (settings, client),
    ):

        def stops() -> bool:
            return interruption.is_requested

        publisher = Publisher(client, settings, dry_run=order.dry_run)
        times = block_times(settings.redis.partitions)
        resumes = order.job and not order.dry_run
        digest = file.digest(routing_digest(settings), times) if resumes else ""
        waits = order.wait and not order.job  # the outcomes of a job are known by its name
        choice = Choice(source, options, digest, dry_run=order.dry_run, waits=waits)
        away_seconds = patience_seconds(resolve_url(settings.redis))
        sending = Sending(publisher, choice, away_seconds, deadline, interruption)
        with ExitStack() as ending:
            if beside and file.file_id:
                process = start_drafting(settings.source, choice, file, stops)
                drafter = ending.enter_context(process)
            else:
                drafter = drafter_of(file, publisher, choice, times, stops)
            sending.run(drafter, ending.enter_context(progress("sent")))
        published, damages = sending.published, drafter.damages
        document = published.document() | {"dry_run": order.dry_run}
        _report(sending, order.job, as_json=order.as_json)
        ended, waiting = None, 0
        try:
            if order.wait:
                sent = order.job or published
                waiting = wait_for_deliveries(client, settings, sent, deadline, interruption)
                from segrelay.ops.outcomes.reading import read_ended  # noqa: PLC0415 - of --wait

                ended = read_ended(client, settings, sent, waiting)
                document["outcomes"] = ended.document()
            elif published.accepted and not order.dry_run:
                with suppress(RedisUnavailable):  # all of it is accepted already
                    _tell_of_workers(client)
        finally:
            print_result(document, *(ended.lines() if ended else ()), as_json=order.as_json)
    if damages:
        raise SourceDamaged(
            f"{source} is damaged: {damages[0]}. What could be read of it "
            f"{'would be' if order.dry_run else 'was'} sent; send the whole file: events that are"
            " there twice are delivered once."
        )
    nothing = published.payloads and not (published.accepted or published.repeated)
    refused = published.refused if order.strict or order.wait else 0
    if nothing or published.forgotten or refused or waiting or (ended and ended.counts.dead):
        raise typer.Exit(1)


def _tell_of_workers(client: Redis) -> None:
    if not is_worked(client):
        mention(
            "No worker runs, so what was sent waits in Redis: `segrelay up` or `segrelay worker`"
            " starts one."
        )


def _report(sending: Sending, job: str, *, as_json: bool) -> None:
    published = sending.published
    if not as_json:
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
                else "`segrelay quarantine replay --reason older_than_ledger --force`."
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

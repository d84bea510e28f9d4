"""`segrelay discard`: take back what waits."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.cli.asking import confirmed
from ops.cli.console import print_json, progress, say
from ops.cli.opened import opened
from ops.state.partitions import all_partitions
from ops.state.waiting import Choice, count_chosen, find_streams, take_back
from worker.errors import UsageWrong


def discard(
    *,
    job: Annotated[str, typer.Option(help="What a job has published.")] = "",
    trigger: Annotated[str, typer.Option(help="What waits for a trigger.")] = "",
    audience: Annotated[str, typer.Option(help="What is about an audience.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Take back what waits: it is counted as discarded. Several options narrow each other.

    What a worker has read already may still be sent. Dead letters: `segrelay dlq discard`.
    """
    if not (job or trigger or audience):
        raise UsageWrong("Name --job, --trigger or --audience.")
    choice = Choice(job, trigger, audience)
    with opened() as (settings, client):
        streams = find_streams(client, all_partitions(client, settings), choice)
        count = count_chosen(client, streams, choice)
        done = 0
        if count:
            confirmed(f"Discard {count:,} waiting deliveries for good?", yes=yes)
            with progress("discarded", count) as shown:
                for taken in take_back(client, streams, choice):
                    done += taken
                    shown.advance(taken)
    if as_json:
        print_json({"discarded": done})
    else:
        say(f"{done:,} deliveries discarded")

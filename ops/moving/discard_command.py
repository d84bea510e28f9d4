"""`segrelay discard`: take back waiting deliveries."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ops.state.acts import Reason, act_of, acting
from ops.state.opened import opened
from ops.state.partitions import all_partitions
from ops.state.waiting import Choice, count_chosen, find_streams, take_back
from ops.terminal.console import confirmed, counted, print_result
from ops.terminal.options import All, Json, Yes
from worker.errors import UsageWrong


def discard(
    *,
    job: Annotated[str, typer.Option(help="Only what this job has published.")] = "",
    trigger: Annotated[str, typer.Option(help="Only what waits for this trigger.")] = "",
    audience: Annotated[str, typer.Option(help="Only what is about this audience.")] = "",
    everything: All = False,
    yes: Yes = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Take back deliveries that are waiting; they are counted as discarded.

    Several options narrow each other. A worker may still send what it has read already. `segrelay
    dlq discard` is for dead letters, `segrelay quarantine discard` for what could not be placed.
    """
    if not (job or trigger or audience or everything):
        raise UsageWrong("Name --job, --trigger or --audience, or say --all.")
    choice = Choice(job, trigger, audience)
    with opened() as (settings, client):
        streams = find_streams(client, all_partitions(client, settings), choice)
        count = count_chosen(client, streams, choice)
        done = 0
        if count:
            confirmed(f"Discard {count:,} waiting deliveries for good?", yes=yes)
            act = act_of("discard", reason=reason, arguments=asdict(choice))
            with acting(client, act) as doing:
                steps = doing.counting(take_back(client, streams, choice))
                done = counted("discarded", steps, count)
    print_result({"discarded": done}, f"{done:,} deliveries discarded", as_json=as_json)

"""`segrelay destination`: give a destination another name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ops.moving.renaming import Renaming
from ops.state.acts import Reason, act_of, acting
from ops.state.opened import opened
from ops.state.partitions import Carried, known_destinations
from ops.state.waiting import refuse_other_configurations
from ops.terminal.console import confirmed, mention, print_result
from ops.terminal.options import Json, Yes, configured
from worker.contract.settings import Settings
from worker.errors import UsageWrong

app = typer.Typer()


@app.callback()
def root() -> None:
    """Give a destination another name."""


@app.command()
def rename(
    old: Annotated[str, typer.Argument(help="The name that the configuration no longer has.")],
    new: Annotated[str, typer.Argument(help="The name that it has now.")],
    *,
    yes: Yes = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Carry everything that is known of a destination over to its new name.

    Change the name in the configuration, restart the workers and the receivers, and run this:
    what waits, the ledger, the dead letters, the counts, the members of syncs, the positions of
    jobs and stable ids go to the new name. Nothing is delivered under either name meanwhile. It can
    be interrupted, and run again, as often as you like: a receiver that still knew the old name may
    have accepted more. No worker drains the old name afterwards; to go back to it, run this with
    the names exchanged.
    """
    with opened() as (settings, client):
        _refuse(settings, old, new, known_destinations(client, settings))
        refuse_other_configurations(client, settings)
        confirmed(f"Carry everything of {old} over to {new}?", yes=yes)
        act = act_of("destination rename", old, reason=reason, arguments={"to": new})
        with acting(client, act) as doing:
            done = Renaming(client, settings, old, new, _tell).run()
            doing.count = done.deliveries
    print_result(asdict(done), f"{old} is {new} now: {done}", as_json=as_json)


def _refuse(settings: Settings, old: str, new: str, known: list[str]) -> None:
    configured("destination", new, settings.destinations)
    if old in settings.destinations:
        raise UsageWrong(
            f"The configuration still has the destination {old}: give it the name {new} there, and"
            " restart the workers and receivers first."
        )
    if old not in known:
        raise UsageWrong(f"Redis holds nothing of a destination {old}.")


def _tell(carried: Carried) -> None:
    mention(f"carried over: {carried}")

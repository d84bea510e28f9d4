"""`segrelay trigger`: what to do with the deliveries of a trigger that is gone."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.state.opened import opened
from ops.state.partitions import all_partitions
from ops.state.status import is_orphan
from ops.state.waiting import Choice, Mover, find_streams, refuse_other_configurations
from ops.terminal.asking import confirmed
from ops.terminal.console import note, print_json, progress, say
from ops.terminal.options import Json, Yes
from producer.doorbell import CeleryDoorbell
from worker.contract.settings import Settings, Trigger
from worker.errors import UsageWrong

app = typer.Typer()


@app.callback()
def root() -> None:
    """Deal with the deliveries of a trigger that is gone."""


@app.command()
def move(
    old: Annotated[str, typer.Argument(help="A trigger that the configuration no longer has.")],
    new: Annotated[str, typer.Argument(help="A trigger that the configuration has.")],
    *,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Move the deliveries that wait for a trigger that is gone to another of the same direction.

    The count of accepted deliveries moves along. Dead letters stay what they are. While a worker
    runs that was started with another configuration, nothing is moved: it may be sending just that.
    """
    with opened() as (settings, client):
        target = _target(settings, new)
        streams = [
            stream
            for stream in find_streams(
                client, all_partitions(client, settings), Choice(trigger=old)
            )
            if is_orphan(settings, stream.place, old)
        ]
        _refuse_configured(settings, old, is_anything=bool(streams))
        count = sum(stream.length for stream in streams)
        moved = left = 0
        if count:
            refuse_other_configurations(client, settings)
            confirmed(f"Move {count:,} waiting deliveries from {old} to {new}?", yes=yes)
            mover = Mover(client, settings, target, CeleryDoorbell(settings))
            with progress("moved", count) as shown:
                for step in mover.move(streams):
                    moved += step.moved
                    left += step.left
                    shown.advance(step.moved)
    if as_json:
        print_json({"moved": moved, "left": left})
        return
    say(f"{moved:,} deliveries moved")
    if left:
        note(f"{left:,} stay: {new} is for another direction.")


def _target(settings: Settings, name: str) -> Trigger:
    if name not in settings.triggers:
        known = ", ".join(settings.triggers)
        raise UsageWrong(f"The configuration has no trigger {name}; it has: {known}.")
    return settings.triggers[name]


def _refuse_configured(settings: Settings, old: str, *, is_anything: bool) -> None:
    if old in settings.triggers and not is_anything:
        raise UsageWrong(
            f"{old} is configured, so workers deliver what waits for it; only what the"
            " configuration does not name any more can be moved."
        )

"""`segrelay trigger`: move deliveries that their trigger does not want any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from ops.moving.deliveries import Mover
from ops.state.acts import Reason, act_of, acting
from ops.state.opened import opened
from ops.state.partitions import all_partitions
from ops.state.waiting import Choice, Stream, find_streams, refuse_other_configurations
from ops.terminal.console import confirmed, mention, print_json, progress, say
from ops.terminal.options import Json, Yes, configured
from producer.doorbell import CeleryDoorbell
from worker.adapters.redis.addresses import read_renamed
from worker.adapters.redis.meanings import read_meanings
from worker.contract.settings import Settings
from worker.errors import UsageWrong

app = typer.Typer()


@app.callback()
def root() -> None:
    """Deal with deliveries whose trigger is gone, or means something else now."""


@app.command()
def move(
    old: Annotated[str, typer.Argument(help="The trigger for which they wait.")],
    new: Annotated[str, typer.Argument(help="A trigger that the configuration has.")],
    *,
    yes: Yes = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Move orphaned deliveries to another trigger that wants them.

    Orphaned is what waits for a trigger that the configuration no longer has, and what waits for
    one that has another direction or other audiences now. What the old trigger still wants stays,
    and so does what the new one does not want. The count of accepted deliveries moves along. Dead
    letters stay what they are. While a worker runs that was started with another configuration,
    nothing is moved: it may be sending just that.
    """
    with opened() as (settings, client):
        target = configured("trigger", new, settings.triggers)
        meanings = read_meanings(client, settings)
        mover = Mover(client, settings, target, meanings, CeleryDoorbell(settings))
        streams = find_streams(client, all_partitions(client, settings), Choice(trigger=old))
        _refuse_renamed(streams, read_renamed(client))
        count = sum(1 for stream in streams for _ in mover.orphans(stream))
        _refuse_wanted(settings, old, count)
        moved = left = 0
        if count:
            refuse_other_configurations(client, settings)
            confirmed(f"Move {count:,} orphaned deliveries from {old} to {new}?", yes=yes)
            act = act_of("trigger move", old, reason=reason, arguments={"to": new})
            with acting(client, act) as doing, progress("moved", count) as shown:
                for step in mover.move(streams):
                    moved += step.moved
                    doing.count = moved
                    left += step.left
                    shown.advance(step.moved)
    if as_json:
        print_json({"moved": moved, "left": left})
        return
    say(f"{moved:,} deliveries moved")
    if left:
        mention(f"{left:,} stay: {new} is for another direction, or for other audiences.")


def _refuse_renamed(streams: Sequence[Stream], renamed: Mapping[str, str]) -> None:
    for name in {stream.place.destination for stream in streams} & renamed.keys():
        raise UsageWrong(
            f"These deliveries came under the former name of a destination; `segrelay destination"
            f" rename {name} {renamed[name]}` carries them over."
        )


def _refuse_wanted(settings: Settings, old: str, orphans: int) -> None:
    if old in settings.triggers and not orphans:
        raise UsageWrong(
            f"{old} is configured, so workers deliver what waits for it; only what no trigger of"
            " that name wants can be moved."
        )

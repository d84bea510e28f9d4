"""`rename destination` and `redis add-destination`."""

from __future__ import annotations

from typing import Annotated

import typer

from segrelay.ops.state.acts import Acts, Asks, perform
from segrelay.ops.state.opened import insist
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import configured
from segrelay.worker.contract.redis.claim import (
    add_destinations,
    rename_destination,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import NAME_PATTERN
from segrelay.worker.errors import OperationsMustAct, UsageWrong


def rename(
    old: Annotated[str, typer.Argument(help="The name that Redis knows.")],
    new: Annotated[str, typer.Argument(help="The name from now on.")],
    *,
    relay: Asks,
) -> Result:
    """Give a destination another name; all that Redis holds about it stays where it is.

    Run it before or after you change the name in the configuration. It is one write, and safe while
    everything runs: a process that was started with the former name goes on working on the same
    data until you restart it. A process that starts with a name that Redis does not know refuses,
    and says so. What two destinations hold is not merged: the new name must be one that Redis does
    not know.
    """
    client, settings = relay.client, relay.settings
    _refuse(settings, old, new)
    relay.confirm(f"Call the destination {old} {new} from now on?")
    act = relay.act(old, to=new)
    if not insist(lambda: rename_destination(client, act, old, new)):
        raise OperationsMustAct(
            f"Somebody else has renamed {old}, or given the name {new}, at this moment; `segrelay"
            " status` shows the names."
        )
    return Result({"from": old, "to": new}, f"{old} is {new} now")


def _refuse(settings: Settings, old: str, new: str) -> None:
    ids = settings.redis.ids
    if not ids.has(old):
        known = ", ".join(ids.names()) or "none"
        raise UsageWrong(f"Redis knows no destination {old}; it knows: {known}.")
    if ids.has(new):
        raise UsageWrong(
            f"Redis knows a destination {new} already, and what two destinations hold is not"
            " merged. `segrelay rename trigger` moves what waits for a trigger."
        )
    if not {old, new} & settings.destinations.keys():
        raise UsageWrong(
            f"The configuration has neither {old} nor {new}; one of the two has to be there."
        )
    if not NAME_PATTERN.fullmatch(new):
        raise UsageWrong(f"{new!r} is no name: use small letters, digits and hyphens.")


def add_destination(
    name: Annotated[str, typer.Argument(help="A destination of the configuration.")],
    *,
    relay: Acts,
) -> Result:
    """Say that a destination is new, although Redis knows its address under another name.

    A process that starts refuses a new name with the host and the credentials of a known
    destination that the configuration does not name, since it may be that destination renamed. This
    says that it is another one: it begins with nothing, and what the other one holds stays there.
    """
    client, settings = relay.client, relay.settings
    configured("destination", name, settings.destinations)
    is_new = not settings.redis.ids.has(name)
    if is_new:
        perform(
            client,
            relay.act(name),
            lambda _: add_destinations(client, settings, [name]),
            is_counted=False,
        )
    told = f"{name} is known now" if is_new else f"{name} was known already"
    return Result({"name": name, "changed": is_new}, told)

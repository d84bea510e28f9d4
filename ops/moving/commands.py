"""`redis confirm-destination`."""

from __future__ import annotations

from typing import Annotated

import typer

from segrelay.ops.state.acts import Asks, perform
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import configured
from segrelay.worker.contract.redis.claim import confirm_destination as confirm
from segrelay.worker.contract.redis.claim import read_refused, refusal


def confirm_destination(
    name: Annotated[str, typer.Argument(help="A destination of the configuration.")],
    *,
    relay: Asks,
) -> Result:
    """Confirm a destination whose new name or new address was refused.

    A process that starts refuses a new name with the address and authorization of a known
    destination that the configuration no longer names, since it may be that destination renamed.
    And it refuses another address or authorization of a known name. This says that the
    configuration is right. Under a new name, the destination begins with nothing; what the other
    one holds stays there. At a new address, it goes on with all that it holds, and processes that
    know the former address send nothing more.
    """
    client, settings = relay.client, relay.settings
    configured("destination", name, settings.destinations)
    known_as = read_refused(client, settings).get(name)
    if known_as:
        relay.confirm(f"{refusal(name, known_as)}. Is {name} right as it is configured?")
        perform(
            client,
            relay.act(name),
            lambda _: confirm(client, settings, name),
            is_counted=False,
        )
    told = f"{name} is confirmed" if known_as else f"{name} was not refused"
    return Result({"name": name, "changed": bool(known_as)}, told)

"""Waiting until the present holders of leases have given them back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from redis import Redis

from ops.state import scripts
from ops.state.partitions import ask_each
from worker.contract.keys import PartitionKeys
from worker.contract.redis.scripts import ScriptCall
from worker.errors import OperationsMustAct

RENAMED: Final = "renamed:"
"""The prefix of the token of a lease that is never given back, after a destination was renamed: the
new name follows, and nobody works under the former one."""
_LOOK_SECONDS: Final = 0.1
_HELD_SECONDS: Final = 300.0
"""Seconds to wait for a lease to lapse; a drain with hanging requests ends at their deadline."""


def await_holders(
    client: Redis,
    places: Sequence[PartitionKeys],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until all present holders of leases of these partitions have given them back."""
    tokens = ask_each(client, places, lambda pipe, place: pipe.hget(place.lease, "token"))
    left = [
        (place, token)
        for place, token in zip(places, tokens, strict=True)
        if token is not None and not token.startswith(RENAMED.encode())
    ]
    ends_at = time.monotonic() + _HELD_SECONDS
    while left:
        calls = [ScriptCall([place.lease], [token]) for place, token in left]
        gone = scripts.run(client, "has_gone", calls)
        left = [held for held, has_gone in zip(left, gone, strict=True) if not has_gone]
        if left and time.monotonic() > ends_at:
            raise OperationsMustAct(
                f"A worker does not give back the lease of {left[0][0].tag}; give the command again"
                " once it has ended. Nothing is lost: what was declared holds for all who follow."
            )
        if left:
            sleep(_LOOK_SECONDS)

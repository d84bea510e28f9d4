"""`HeldLease`: the lease of a partition, held by a command, so that no worker drains it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from redis import Redis

from ops.state import scripts
from worker.contract.keys import PartitionKeys
from worker.contract.redis.scripts import ScriptCall, Value
from worker.errors import OperationsMustAct

RENAMED: Final = "renamed:"
"""The prefix of the token of a lease that is never given back, after a renaming."""
FOR_EVER_MS: Final = 10 * 365 * 24 * 3_600_000
STEP_MS: Final = 30_000
"""Duration of the lease in ms, longer than any step; workers go on after it if we die."""
_PATIENCE_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class HeldLease:
    """The lease of a partition; every script that writes compares its token.

    Args:
        owner: The holder's name, for messages.
        length_ms: The duration of the lease without a renewal.
        takes: The beginning of tokens that are taken away from whoever has them; "" = none.
    """

    client: Redis
    place: PartitionKeys
    owner: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    length_ms: int = STEP_MS
    takes: str = ""

    def hold(self) -> None:
        """Take or renew the lease; it waits until a worker has ended its slice.

        Raises:
            OperationsMustAct: Somebody else goes on holding it.
            RedisUnavailable: Redis can't be asked.
        """
        gives_up_at = time.monotonic() + _PATIENCE_SECONDS
        while (holder := self._try()) is not None:
            if time.monotonic() > gives_up_at:
                who, _, _ = holder.partition(" ")
                raise OperationsMustAct(
                    f"{who or 'Somebody'} goes on working on partition {self.place.partition} of"
                    f" {self.place.destination}. Stop it, or restart it with this configuration;"
                    " then run this again: what is done stays done."
                )
            time.sleep(_LOOK_SECONDS)

    def _try(self) -> str | None:
        """Try to take the lease; return its holder, or None if it was taken."""
        args = (self.token, self.length_ms, self.owner, self.takes)
        ((is_ours, other),) = scripts.run(
            self.client, "hold", [ScriptCall((self.place.lease,), args)]
        )
        return None if is_ours else other.decode()

    def let_go(self) -> None:
        """Give the lease back."""
        scripts.run(self.client, "let_go", [ScriptCall((self.place.lease,), (self.token,))])

    def run(self, name: str, keys: list[str | bytes], args: list[Value]) -> int:
        """Run a script that checks the lease, and return its answer.

        Raises:
            OperationsMustAct: The lease was taken over.
        """
        call = ScriptCall((self.place.lease, *keys), (self.token, *args))
        (answer,) = scripts.run(self.client, name, [call])
        if answer == -1 or (answer == 0 and name not in _COUNTING):
            raise OperationsMustAct(
                f"The lease of {self.place.tag} was taken over. Run this again: what is done stays"
                " done."
            )
        return int(answer)


_COUNTING: Final = frozenset({"entries_in", "entries_out"})
"""Scripts that return a count; without the lease they return -1."""


@contextmanager
def held(lease: HeldLease) -> Iterator[HeldLease]:
    """Hold a lease in a `with` block."""
    lease.hold()
    try:
        yield lease
    finally:
        lease.let_go()

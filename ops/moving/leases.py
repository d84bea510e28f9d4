"""Leases of partitions: held by a command, so that no worker drains them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from segrelay.ops.state import opened
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.errors import OperationsMustAct, RedisUnavailable

PATIENCE_SECONDS: Final = 40.0
"""Seconds to wait for a worker to end its slice and give its lease back, or for the lease of a
command that lost Redis to lapse."""
STEP_MS: Final = 30_000
"""Duration of a command's lease in ms: longer than any step, and workers go on after a crash."""
_LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class HeldLease:
    """The lease of a partition, held by a command; every script that writes compares its token.

    Args:
        owner: The holder's name, for messages.
        length_ms: The duration of the lease without a renewal.
        patience_seconds: The longest wait for whoever has it.
    """

    client: Redis
    partition: PartitionKeys
    owner: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    length_ms: int = STEP_MS
    patience_seconds: float = PATIENCE_SECONDS

    def hold(self) -> None:
        """Take or renew the lease; wait until the worker that has it ends its slice."""
        gives_up_at = time.monotonic() + self.patience_seconds
        while (holder := self._try()) is not None:
            if time.monotonic() > gives_up_at:
                who, _, _ = holder.partition(" ")
                raise OperationsMustAct(
                    f"{who or 'Somebody'} goes on working on partition {self.partition.number} of"
                    f" {self.partition.destination}. Stop it, or restart it with this"
                    " configuration; then run this again: what is done stays done."
                )
            time.sleep(_LOOK_SECONDS)

    def _try(self) -> str | None:
        """Try to take the lease; return None if that succeeds, else its holder."""
        ((is_ours, other),) = opened.run(self.client, "hold", [self.call], replicated=True)
        return None if is_ours else other.decode()

    @property
    def call(self) -> ScriptCall:
        """Return the call that takes or renews the lease."""
        args = (self.token, self.length_ms, self.owner)
        return ScriptCall((self.partition.lease,), args)

    def let_go(self) -> None:
        """Give the lease of the partition back to the workers."""
        opened.run(self.client, "let_go", [ScriptCall((self.partition.lease,), (self.token,))])


@contextmanager
def held(lease: HeldLease) -> Iterator[HeldLease]:
    """Hold a lease in a `with` block."""
    lease.hold()
    with giving_back(lease.let_go):
        yield lease


@contextmanager
def giving_back(let_go: Callable[[], None]) -> Iterator[None]:
    """Give leases back at the end of a `with` block; where Redis is away, they lapse."""
    is_away = False
    try:
        yield
    except RedisUnavailable:
        is_away = True
        raise
    finally:
        if not is_away:
            let_go()

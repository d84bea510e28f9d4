"""The instance id of a Redis: a random name by which a Redis that came back empty is noticed.

It is written once, at first use. Each process that runs for long remembers it and compares; where
it has changed, all that the Redis held before is gone, and that is kept until somebody has seen it.
In a Cluster, every master has a certificate, which goes with its slot to whoever has that.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.acts import Act, carry_out
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.scripts import (
    IN_ANY_CASE,
    ScriptCall,
    run_each,
    run_script,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import RedisUnavailable

LOG: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loss:
    """A Redis that came back empty.

    Args:
        last_seen_ms: The time when its content was last seen, by its own clock.
        noticed_ms: The time when it was noticed.
        node: The address of the node, in a Cluster; "" = all of it.
    """

    last_seen_ms: int
    noticed_ms: int
    node: str = ""


KnownInstances = dict[str, tuple[str, int]]
"""The certificates that a process has seen last, and when (ms), by key; they outlive connections.
"""


@dataclass(slots=True)
class InstanceWatch:
    """Notices when the Redis that a process works with came back empty.

    Args:
        client: Of the process.
        settings: With which an empty Redis is claimed anew.
        known: Of the process.
    """

    client: Redis
    settings: Settings
    known: KnownInstances = field(default_factory=dict)

    def look(self) -> None:
        """Compare the certificates in Redis with those that were last seen.

        Raises:
            RedisUnavailable: Redis can't be asked.
            RedisMismatch: It is another one, and in use with another configuration.
        """
        self._look({keys.INSTANCE_ID: ""})
        with suppress(RedisUnavailable):  # a master that is away has lost nothing yet
            if nodes := self.client.keys_of_masters():
                self._look(nodes)

    def _look(self, nodes: Mapping[str, str]) -> None:
        """Read the certificates of nodes, and write one where there is none."""
        new = (ScriptCall((key,), ("HSETNX", "id", secrets.token_hex(8))) for key in nodes)
        run_each(self.client, IN_ANY_CASE, list(new))
        pipe = self.client.pipeline(transaction=False)
        for key in nodes:
            pipe.hget(key, "id")
        at_ms = now_ms(self.client)
        for (key, node), name in zip(nodes.items(), pipe.execute(), strict=True):
            if name:  # else it was emptied since, which the next look finds
                self._compare(key, node, name.decode(), at_ms)

    def _compare(self, key: str, node: str, name: str, now_ms: int) -> None:
        before, seen_ms = self.known.get(key, (name, now_ms))
        if before != name:
            lost = f"{before}@{node}" if node else before
            args = ("HSETNX", lost, f"{seen_ms}|{now_ms}")
            run_script(self.client, IN_ANY_CASE, (keys.LOST,), args)
            told = f"Redis{node and f' at {node}'} lost all that it held: segrelay status"
            LOG.error("redis.emptied", message=told)
        self.known[key] = (name, now_ms)
        if before != name:
            claim(self.client, self.settings)


def read_losses(client: Redis) -> list[Loss]:
    """Return each time at which this Redis came back empty, the newest last.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    stored: Any = client.hgetall(keys.LOST)
    found = [_loss(*pair) for pair in stored.items()]
    return sorted(found, key=lambda loss: loss.noticed_ms)


def _loss(name: bytes, text: bytes) -> Loss:
    last_seen_ms, noticed_ms = map(int, text.split(b"|"))
    return Loss(last_seen_ms, noticed_ms, name.decode().partition("@")[2])


def forget_losses(client: Redis, act: Act) -> int:
    """Forget the losses of this Redis, since a person has seen them; return how many there were.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    count = int(client.hlen(keys.LOST))
    done = carry_out(client, replace(act, count=count), keys.LOST, "DEL", only_if_changed=True)
    return max(count, int(done))

"""The birth certificate of a Redis: a random name by which a Redis that came back empty is noticed.

It is written once, at first use. Each process that runs for long remembers it and compares; where
it has changed, all that the Redis held before is gone, and that is kept until somebody has seen it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Final

import redis
import structlog

from worker.contract import keys
from worker.contract.redis.acts import Act, carry_out
from worker.contract.redis.claim import claim
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import run_script
from worker.contract.settings import Settings

LOG: Final = structlog.get_logger()
_LOOK: Final = """\
#!lua flags=allow-oom
-- Writes the certificate where there is none, and keeps that a remembered one is gone.
-- KEYS[1] birth  [2] lost
-- ARGV[1] as remembered; '' = nothing is  [2] a new one  [3] when it was last seen (ms)
-- Returns {the certificate, now (ms)}.
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local id = redis.call('HGET', KEYS[1], 'id')
if not id then
  id = ARGV[2]
  redis.call('HSET', KEYS[1], 'id', id, 'at', now)
end
if ARGV[1] ~= '' and ARGV[1] ~= id then
  redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[3] .. '|' .. now)
end
return {id, now}
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """A Redis that came back empty.

    Args:
        last_seen_ms: When what it held was last seen, by its own clock.
        noticed_ms: When it was noticed.
    """

    last_seen_ms: int
    noticed_ms: int


@dataclass(slots=True)
class KnownBirth:
    """The certificate that a process has seen last, and when (ms); it outlives connections."""

    name: str = ""
    seen_ms: int = 0


@dataclass(slots=True)
class BirthWatch:
    """Remembers which Redis a process works with.

    Args:
        client: Of the process.
        settings: With which an empty Redis is claimed anew.
        known: Of the process.
    """

    client: redis.Redis
    settings: Settings
    known: KnownBirth = field(default_factory=KnownBirth)

    def look(self) -> None:
        """Compare the certificate with what is remembered.

        Raises:
            RedisUnavailable: Redis can't be asked.
            RedisMismatch: It is another one, and in use with another configuration.
        """
        with redis_errors():
            answer: Any = run_script(
                self.client,
                _LOOK,
                (keys.BIRTH, keys.LOST),
                (self.known.name, secrets.token_hex(8), self.known.seen_ms),
            )
        before = self.known.name
        self.known.name, self.known.seen_ms = answer[0].decode(), int(answer[1])
        if before and before != self.known.name:
            LOG.error("redis.emptied", message="Redis lost all that it held: segrelay status")
            claim(self.client, self.settings)


def read_losses(client: redis.Redis) -> list[Loss]:
    """Return when this Redis came back empty, the newest last.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        stored: Any = client.hgetall(keys.LOST)
    found = [Loss(*(int(part) for part in text.split(b"|"))) for text in stored.values()]
    return sorted(found, key=lambda loss: loss.noticed_ms)


def forget_losses(client: redis.Redis, act: Act) -> int:
    """Forget them, because a person has seen them; returns how many there were.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        count = int(client.hlen(keys.LOST))
    carry_out(client, replace(act, count=count), keys.LOST, "DEL", only_if_changed=True)
    return count

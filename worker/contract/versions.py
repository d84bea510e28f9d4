"""Which version of its template each trigger has, and how the one before it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson
from redis import Redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors

OUTCOMES: Final = ("delivered", "skipped", "dead")


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """The version of a trigger's template.

    Args:
        version: The content hash.
        since_ms: When it was first used; Redis' clock.
        base: Counts of outcomes by then.
        before: The one before it; "" = none is known.
        did: Counts of outcomes of the one before.
        canary: How many deliveries go first; 0 = it is none.
    """

    version: str
    since_ms: int = 0
    base: Mapping[str, int] = field(default_factory=dict)
    before: str = ""
    did: Mapping[str, int] = field(default_factory=dict)
    canary: int = 0

    def dumps(self) -> bytes:
        """Return it as it stands in Redis."""
        return orjson.dumps(asdict(self))

    def outcomes(self, now: Mapping[str, int]) -> dict[str, int]:
        """Return the counts of this version alone."""
        return {kind: max(0, now.get(kind, 0) - self.base.get(kind, 0)) for kind in OUTCOMES}


def parse_versions(stored: Mapping[bytes, bytes]) -> dict[str, TemplateVersion]:
    """Return what the hash says, by trigger."""
    return {
        name.decode(): TemplateVersion(**orjson.loads(text))
        for name, text in stored.items()
        if b"|" not in name
    }


def read_versions(client: Redis) -> dict[str, TemplateVersion]:
    """Return the versions, by trigger.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        stored: Any = client.hgetall(keys.VERSIONS)
    return parse_versions(stored)


def in_words(counts: Mapping[str, int]) -> str:
    """Say how deliveries ended, in percent."""
    total = sum(counts.get(kind, 0) for kind in OUTCOMES)
    if not total:
        return "nothing yet"
    shares = (f"{counts.get(kind, 0) / total:.1%} {kind}" for kind in OUTCOMES)
    return f"{', '.join(shares)} of {total:,}"


def summary(trigger: str, one: TemplateVersion, now: Mapping[str, int]) -> str:
    """Return why a trigger is paused after its canary."""
    return (
        f"the canary of version {one.version} is over: {in_words(one.outcomes(now))}; version"
        f" {one.before or 'unknown'} before it: {in_words(one.did)}. `segrelay resume {trigger}`"
        " lets the rest go; to undo it put the older template back first."
    )

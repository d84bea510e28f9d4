"""Lets a number of deliveries of a changed template go first, then pauses its trigger.

Every process adopts the version that it works with; the first to bring a new one begins the canary.
While it lasts a drain takes a share of what is left before it reads, and gives back what it did not
use; processes that still have another version leave the trigger alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import redis.asyncio
import structlog

from worker.adapters.redis import scripts
from worker.adapters.redis.partition import RedisPartition
from worker.batch.partition import Settlement
from worker.batch.routes import Route
from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.pauses import TRIGGER, Pause, dumps, field_of
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.contract.versions import OUTCOMES, TemplateVersion, parse_versions, summary

SHARE_MS: Final = 130_000
"""A drain is ended after two minutes; what it held then is not given out again."""
LEAST: Final = 25
SHARES: Final = 4
"""Of what is left, a drain takes one of so many parts, but not less than that: others have
something to do too, and the end should not take long."""
LOG: Final = structlog.get_logger()


@dataclass(slots=True)
class Ration:
    """What of the canaries of a destination one drain may work on.

    Args:
        owner: Of the shares.
        held: Triggers that it leaves alone.
        shares: By trigger, how many deliveries.
        used: By trigger, how many it settled.
    """

    owner: str
    held: frozenset[str] = frozenset()
    shares: Mapping[str, int] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)

    @property
    def most(self) -> int:
        """Return how many entries the drain may read; 0 = as many as it likes."""
        return min(self.shares.values(), default=0)


class CountingPartition(RedisPartition):
    """A partition that tells how many deliveries of each trigger were settled."""

    used: Counter[str]

    async def settle(self, settlement: Settlement) -> int:
        """Settle, and count."""
        end_ms = await super().settle(settlement)
        self.used.update(one.delivery.trigger for one in settlement.settled)
        return end_ms


class Canaries:
    """See the module; one for each process.

    Args:
        client: Of the process.
        settings: Of the node.
    """

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._told: dict[str, str] = {}

    async def begin(self, owner: str, routes: Mapping[str, Route]) -> Ration:
        """Adopt the versions of the routes, and return what the drain may do.

        Raises:
            RedisUnavailable: Redis can't be asked.
        """
        with redis_errors():
            await self._adopt(routes)
            watched = [name for name in routes if self._settings.triggers[name].canary]
            if not watched:
                return Ration(owner)
            return await self._ration(owner, routes, watched)

    async def _adopt(self, routes: Mapping[str, Route]) -> None:
        new = {
            name: route.template.content_hash
            for name, route in routes.items()
            if route.template and self._told.get(name) != route.template.content_hash
        }
        if not new:
            return
        known = await self._versions()
        for name, version in new.items():
            old = known.get(name)
            if old is None or old.version != version:
                await self._adopt_one(name, version, old)
            self._told[name] = version

    async def _adopt_one(self, name: str, version: str, old: TemplateVersion | None) -> None:
        counts = await self._counts(name)
        seconds, _ = await scripts.command(self._client, "TIME")
        canary = self._settings.triggers[name].canary if old is not None else 0
        new = TemplateVersion(
            version,
            int(seconds) * 1_000,
            counts,
            old.version if old else "",
            old.outcomes(counts) if old else {},
            canary,
        )
        await self._call(name, "adopt", version, new.dumps(), canary)

    async def _ration(self, owner: str, routes: Mapping[str, Route], watched: list[str]) -> Ration:
        known = await self._versions()
        held: set[str] = set()
        shares: dict[str, int] = {}
        for name in watched:
            template, one = routes[name].template, known.get(name)
            left = await scripts.command(self._client, "HGET", keys.VERSIONS, f"{name}|left")
            if one is None or left is None:
                continue
            if template is None or template.content_hash != one.version:
                held.add(name)
                continue
            wanted = max(LEAST, -(-int(left) // SHARES))
            share, is_over = await self._call(name, "take", wanted, owner, SHARE_MS)
            if share > 0:
                shares[name] = share
            elif share == 0:
                held.add(name)
            if is_over:
                await self._finish(name, one)
        return Ration(owner, frozenset(held), shares)

    async def end(self, ration: Ration) -> None:
        """Give back what a drain did not use; pause what is over.

        Raises:
            RedisUnavailable: Redis can't be asked.
        """
        for name in ration.shares:
            with redis_errors():
                _, is_over = await self._call(name, "give", ration.owner, ration.used[name])
                if is_over:
                    await self._finish(name, (await self._versions())[name])

    async def _finish(self, name: str, one: TemplateVersion) -> None:
        """Pause first: whoever dies in between leaves it paused, and not unwatched."""
        reason = summary(name, one, await self._counts(name))
        at = datetime.now(UTC).isoformat(timespec="seconds")
        text = dumps(Pause(reason, "segrelay", at))
        await scripts.call(self._client, "pause", (keys.PAUSED,), (field_of(TRIGGER, name), text))
        if (await self._call(name, "finish"))[0]:
            LOG.warning("trigger.canary_over", trigger=name, reason=reason)

    async def _versions(self) -> dict[str, TemplateVersion]:
        return parse_versions(dict(await scripts.pairs(self._client, keys.VERSIONS)))

    async def _counts(self, name: str) -> dict[str, int]:
        """Return the outcomes of a trigger's deliveries, over all partitions."""
        total: Counter[str] = Counter()
        destination = self._settings.triggers[name].destination
        for number in range(self._settings.redis.partitions):
            place = PartitionKeys(destination, number)
            for key, count in await scripts.pairs(self._client, place.counts):
                kind, trigger, *_ = [*key.decode().split("|"), ""]
                if trigger == name and kind in OUTCOMES:
                    total[kind] += int(count)
        return {kind: total[kind] for kind in OUTCOMES}

    async def _call(self, name: str, *words: Any) -> list[int]:
        answer = await scripts.call(self._client, "canary", (keys.VERSIONS,), (name, *words))
        return [int(each) for each in answer]

"""Pauses that a trigger or a destination gets without a person.

- A trigger whose deliveries all die of one cause (`RedisStreaks`).
- A destination whose dead letters reach the limit, so that none is lost (`DeadLetterLimit`).
- A trigger whose new template has sent its first deliveries (`Canaries`). Every process adopts the
  version that it works with, a worker before it forks its processes; the first to bring a new one
  begins the canary. While it lasts, each drain takes a share of what is left, and gives back what
  had no outcome. Processes that have another version leave the trigger alone meanwhile.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.lease import boottime_seconds
from segrelay.worker.adapters.redis.scripts import until_confirmed
from segrelay.worker.batch.batch import CanaryShares
from segrelay.worker.batch.delivery import Failure, LoadedTrigger
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.acts import MOST_ACTS, Act
from segrelay.worker.contract.redis.client import AsyncRedis
from segrelay.worker.contract.redis.scripts import ScriptCall, run_each_async, run_script_async
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.triggers import (
    DESTINATION,
    KINDS,
    TRIGGER,
    UNMADE,
    Pause,
    TemplateVersion,
    dumps,
    field_of,
    parse_versions,
    summary,
)
from segrelay.worker.contract.words import Death
from segrelay.worker.core.messages import normalise_message

DEATHS_IN_A_ROW: Final = 500
KILLS_IN_A_ROW: Final = 5
"""The most deliveries in a row that may kill a process; each uses up the time limit twice."""
LOG: Final = structlog.get_logger()


class RedisStreaks:
    """Counts streaks over all workers; see `segrelay.worker.batch.settle.Streaks`.

    Args:
        client: Repeats nothing by itself.
        running: Triggers that have a streak, so that `broken` costs nothing elsewhere.
        may_repeat: A function that says whether a question that Redis did not answer should still
            be repeated.
    """

    def __init__(
        self,
        client: AsyncRedis,
        running: Iterable[str] = (),
        *,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client = client
        self._may_repeat = may_repeat
        self._running = set(running)

    async def may_die(self, trigger: str, failure: Failure, count: int) -> int:
        """Return how many of these deliveries may die; if not all may, the trigger is paused.

        It is asked between an answer and its settlement, so it is repeated like that.
        """
        self._running.add(trigger)
        args = (
            trigger,
            failure.cause,
            count,
            most_in_a_row(failure.reason),
            field_of(TRIGGER, trigger),
            _pause_text(failure),
            secrets.token_hex(8),
        )

        async def ask() -> int:
            return int(
                await run_script_async(
                    self._client, scripts.source("streak"), (keys.STREAKS, keys.PAUSED), args
                )
            )

        may_die = await until_confirmed(ask, self._may_repeat)
        if may_die < count:
            _log_paused(trigger, failure)
        return may_die

    async def broken(self, trigger: str) -> None:
        """End a trigger's streak, because one of its deliveries was made."""
        if trigger in self._running:
            self._running.discard(trigger)
            await self._client.execute_command("HDEL", keys.STREAKS, trigger)

    async def pause(self, trigger: str, failure: Failure) -> None:
        """Pause a trigger whose deliveries all die of one cause, and name it as the reason."""
        if await self._pause(trigger, _pause_text(failure)):
            _log_paused(trigger, failure)

    async def stop(self, trigger: str, reason: str) -> None:
        """Pause a trigger for a reason other than a streak of dead deliveries."""
        if await self._pause(trigger, _text_of(reason)):
            LOG.error("trigger.paused", trigger=trigger, reason=reason)

    async def _pause(self, trigger: str, text: bytes) -> bool:
        fields = (field_of(TRIGGER, trigger), text)
        return bool(
            await run_script_async(self._client, scripts.source("pause"), (keys.PAUSED,), fields)
        )


def _log_paused(trigger: str, failure: Failure) -> None:
    LOG.error("trigger.paused", trigger=trigger, reason=failure.reason, cause=failure.cause)


def most_in_a_row(reason: Death) -> int:
    """Return how many deliveries in a row may die of one cause before their trigger is paused."""
    return KILLS_IN_A_ROW if reason is Death.KILLED_WORKER else DEATHS_IN_A_ROW


def _pause_text(failure: Failure) -> bytes:
    reason = f"everything dies of one cause ({failure.cause}): {normalise_message(failure.message)}"
    return _text_of(reason)


def _text_of(reason: str) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return dumps(Pause(reason, "segrelay", at))


SHARE_MS: Final = 130_000
"""The time in ms after which a share is free again: the node ends a drain after two minutes."""
UNLIMITED: Final = -1
DROPPED: Final = -2
"""The mark of a version that another one replaced before it was approved; it needs a new canary."""
LEAST: Final = 25
"""The smallest share of a canary that a drain takes, so that its end does not take long."""
PARTS: Final = 4
"""A drain takes 1/4 of a canary's remaining deliveries, so that other drains get some too."""


_CANARY_KEYS: Final = (keys.VERSIONS, keys.ACTS)


class Canaries:
    """A process' part in the canaries of changed templates.

    Args:
        share_ms: The time for which a drain has its share.
    """

    def __init__(self, client: AsyncRedis, settings: Settings, *, share_ms: int = SHARE_MS) -> None:
        self._client = client
        self._settings = settings
        self._share_ms = share_ms
        self._told: dict[str, tuple[str, str]] = {}

    async def begin(
        self, owner: str, triggers: Mapping[str, LoadedTrigger], refused: Collection[str]
    ) -> CanaryShares:
        """Adopt the triggers' template versions, and return a drain's shares of the canaries.

        Args:
            owner: The drain.
            triggers: Of its destination.
            refused: Triggers whose changed template this process does not use. What it uses in its
                place may be older than what others have: it is not adopted.
        """
        versions = await self.adopt(triggers, refused)
        watched = [name for name in versions if self._settings.triggers[name].canary]
        return await self._ration(owner, {name: versions[name] for name in watched})

    async def adopt(
        self, triggers: Mapping[str, LoadedTrigger], refused: Collection[str]
    ) -> dict[str, str]:
        """Make what this process works with the newest, if it has not done so; see `begin`.

        Returns:
            The versions of the templates, by trigger.
        """
        versions = {
            name: trigger.template.content_hash
            for name, trigger in triggers.items()
            if trigger.template and not trigger.stopped
        }
        await self._adopt(
            {
                name: (version, triggers[name].edition)
                for name, version in versions.items()
                if name not in refused
            },
            triggers,
        )
        return versions

    async def _adopt(
        self, versions: Mapping[str, tuple[str, str]], triggers: Mapping[str, LoadedTrigger]
    ) -> None:
        """Make versions and editions the newest, those that this process has not told of yet."""
        new = {name: each for name, each in versions.items() if self._told.get(name) != each}
        if not new:
            return
        stored = await self._client.execute_command("HGETALL", keys.VERSIONS)
        known = parse_versions(stored)
        changed = {
            name
            for name, each in new.items()
            if name not in known or (known[name].version, known[name].edition) != each
        }
        if changed:
            seconds, _ = await self._client.execute_command("TIME")
            counts = await self._counts(changed)
        calls: list[tuple[str | int | bytes, ...]] = []
        for name, each in new.items():
            load_id = triggers[name].load_id
            if name in changed:
                now_ms = int(seconds) * 1_000
                told = self._adoption(name, each, known.get(name), counts[name], now_ms)
                calls.append((*told, load_id))
            elif f"{load_id} ".encode() not in stored.get(f"{name}|loads".encode(), b""):
                calls.append((name, each[0], "load", load_id))
        if calls:
            canary = scripts.source("canary")
            await run_each_async(
                self._client, [(canary, ScriptCall(_CANARY_KEYS, args)) for args in calls]
            )
        self._told |= new

    def _adoption(
        self,
        name: str,
        adopted: tuple[str, str],
        old: TemplateVersion | None,
        counts: dict[str, int],
        now_ms: int,
    ) -> tuple[str | int | bytes, ...]:
        """Return the script's arguments for adopting a new version of a trigger's template."""
        version, edition = adopted
        canary = self._settings.triggers[name].canary
        new = TemplateVersion(
            version,
            now_ms,
            counts,
            old.version if old else "",
            old.since(counts) if old else {},
            canary,
        )
        arguments = {"version": version, "before": new.before}
        act = Act("template change", "segrelay", name, arguments=arguments)
        told = orjson.dumps(asdict(act))
        return name, version, "adopt", new.dumps(), canary, told, MOST_ACTS, edition

    async def _ration(self, owner: str, versions: Mapping[str, str]) -> CanaryShares:
        held: set[str] = set()
        shares: dict[str, int] = {}
        for name, version in versions.items():
            words = (owner, self._share_ms, LEAST, PARTS)
            share, is_over = await self._call(name, version, "take", *words)
            if is_over:
                await self._finish(name, version)
            if share > 0:
                shares[name] = share
            elif share != UNLIMITED:
                held.add(name)
            if share == DROPPED:
                self._told.pop(name, None)
        return CanaryShares(frozenset(held), shares)

    async def end(
        self, owner: str, triggers: Mapping[str, LoadedTrigger], canary_shares: CanaryShares
    ) -> None:
        """Give back the unused part of a drain's share, and pause triggers whose canary is over."""
        for name in canary_shares.shares:
            template = triggers[name].template
            assert template is not None
            made = canary_shares.outcomes.get(name, Counter())
            counted = {each: count for each, count in made.items() if each not in UNMADE}
            words = (owner, orjson.dumps(counted), sum(counted.values()))
            (is_over,) = await self._call(name, template.content_hash, "give", *words)
            if is_over:
                await self._finish(name, template.content_hash)

    async def _finish(self, name: str, version: str) -> None:
        """Pause a trigger, and then end its canary: dying in between leaves the trigger paused."""
        one = (await self._versions())[name]
        if one.version != version:
            return
        reason = summary(name, one)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        text = dumps(Pause(reason, "segrelay", at))
        await run_script_async(
            self._client, scripts.source("pause"), (keys.PAUSED,), (field_of(TRIGGER, name), text)
        )
        if (await self._call(name, version, "finish"))[0]:
            LOG.warning("trigger.canary_over", trigger=name, reason=reason)

    async def _versions(self) -> dict[str, TemplateVersion]:
        return parse_versions(await self._client.execute_command("HGETALL", keys.VERSIONS))

    async def _counts(self, names: Collection[str]) -> dict[str, dict[str, int]]:
        """Return the counts of each trigger's outcomes, over all partitions."""
        totals: dict[str, Counter[str]] = {name: Counter() for name in names}
        for destination in {self._settings.triggers[name].destination for name in names}:
            for number in range(self._settings.redis.partitions):
                partition = self._settings.redis.ids.partition(destination, number)
                for key, count in (
                    await self._client.execute_command("HGETALL", partition.counts)
                ).items():
                    kind, trigger, *reason = key.decode().split("|")
                    if kind in KINDS and trigger in totals:
                        totals[trigger]["|".join([kind, *reason])] += int(count)
        return {name: dict(total) for name, total in totals.items()}

    async def _call(self, name: str, version: str, *words: Any) -> list[int]:
        answer = await run_script_async(
            self._client, scripts.source("canary"), _CANARY_KEYS, (name, version, *words)
        )
        return [int(each) for each in answer]


LOOK_SECONDS: Final = 2.0


class DeadLetterLimit:
    """Counts the dead letters of a destination every few seconds, and pauses a full one.

    Args:
        settings: The settings, which know the partitions of each destination.
        kept: As many letters a destination may have.
    """

    def __init__(self, client: AsyncRedis, *, settings: RedisSettings, kept: int) -> None:
        self._client = client
        self._settings = settings
        self._kept = kept
        self._next_look: dict[str, float] = {}

    async def pause_if_full(self, destination: str) -> bool:
        """Pause a destination whose letters have reached the limit; say whether they have.

        It looks every few seconds, and else knows of none that has.
        """
        now = boottime_seconds()
        if now < self._next_look.get(destination, 0.0):
            return False
        self._next_look[destination] = now + LOOK_SECONDS
        pipe = self._client.pipeline(transaction=False)
        for partition in range(self._settings.partitions):
            pipe.hlen(self._settings.ids.partition(destination, partition).dead_letters)
        dead_letters = sum(await pipe.execute())
        if dead_letters < self._kept:
            return False
        reason = (
            f"{dead_letters:,} dead letters lie there, as many as delivery.dead_letters_kept"
            " allows:"
            " see `segrelay dlq causes`, replay or discard some, then resume"
        )
        pause = Pause(reason, "segrelay", datetime.now(UTC).isoformat(timespec="seconds"))
        field = field_of(DESTINATION, self._settings.ids.of(destination))
        args = (field, dumps(pause))
        is_new = await run_script_async(self._client, scripts.source("pause"), (keys.PAUSED,), args)
        if is_new:
            LOG.error("destination.paused", destination=destination, reason=reason)
        return True

"""Pauses that a trigger or a destination gets without a person.

- A trigger whose deliveries all die of one cause (`RedisStreaks`).
- A destination whose dead letters reach the limit, so that none is lost (`DeadLetterLimit`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import structlog

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.lease import boottime_seconds
from segrelay.worker.adapters.redis.scripts import until_confirmed
from segrelay.worker.batch.delivery import Failure, LoadedTrigger
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import AsyncRedis
from segrelay.worker.contract.redis.scripts import IN_ANY_CASE, run_script_async
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.triggers import (
    DESTINATION,
    DIES,
    TRIGGER,
    Pause,
    dumps,
    field_of,
)
from segrelay.worker.core.messages import normalise_message

LOG: Final = structlog.get_logger()


class RedisStreaks:
    """Counts streaks over all workers.

    Args:
        client: Repeats nothing by itself.
        running: Triggers that have a streak, so that `broken` costs nothing elsewhere.
        triggers: Those of the drain, by their names.
        may_repeat: A function that says whether a question that Redis did not answer should still
            be repeated.
    """

    def __init__(
        self,
        client: AsyncRedis,
        running: Iterable[str] = (),
        triggers: Mapping[str, LoadedTrigger] = MappingProxyType({}),
        *,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client = client
        self._may_repeat = may_repeat
        self._running = set(running)
        self._triggers = triggers

    async def may_die(self, trigger: str, failure: Failure, count: int) -> int:
        """Return how many of these deliveries may die; if not all may, the trigger is paused.

        It is asked between an answer and its settlement, so it is repeated like that.
        """
        self._running.add(trigger)
        args = (
            trigger,
            failure.cause,
            count,
            failure.reason.effects.in_a_row,
            field_of(TRIGGER, trigger),
            self._pause_text(trigger, failure),
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
        text = self._pause_text(trigger, failure)
        if await _pause(self._client, field_of(TRIGGER, trigger), text):
            _log_paused(trigger, failure)

    async def stop(self, trigger: str, reason: str) -> None:
        """Pause a trigger for a reason other than a streak of dead deliveries."""
        if await _pause(self._client, field_of(TRIGGER, trigger), _text_of(reason)):
            LOG.error("trigger.paused", trigger=trigger, reason=reason)

    def _pause_text(self, trigger: str, failure: Failure) -> bytes:
        """Return the pause, with the edition of the trigger if that is what everything dies of."""
        loaded = self._triggers.get(trigger)
        edition = loaded.edition if loaded and failure.reason.effects.names_template else ""
        reason = f"{DIES} ({failure.cause}): {normalise_message(failure.message)}"
        return _text_of(reason, edition)


async def _pause(client: AsyncRedis, field: str, text: bytes) -> bool:
    """Pause a trigger or a destination, and say whether it was not paused yet."""
    args = ("HSETNX", field, text)
    return bool(await run_script_async(client, IN_ANY_CASE, (keys.PAUSED,), args))


def _log_paused(trigger: str, failure: Failure) -> None:
    LOG.error("trigger.paused", trigger=trigger, reason=failure.reason, cause=failure.cause)


def _text_of(reason: str, edition: str = "") -> bytes:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return dumps(Pause(reason, "segrelay", at, edition))


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
            pipe.hlen(PartitionKeys(destination, partition).dead_letters)
        dead_letters = sum(await pipe.execute())
        if dead_letters < self._kept:
            return False
        reason = (
            f"{dead_letters:,} dead letters lie there, as many as delivery.dead_letters_kept"
            " allows:"
            " see `segrelay dlq causes`, replay or discard some, then resume"
        )
        if await _pause(self._client, field_of(DESTINATION, destination), _text_of(reason)):
            LOG.error("destination.paused", destination=destination, reason=reason)
        return True

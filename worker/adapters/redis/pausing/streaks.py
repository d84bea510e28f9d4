"""`RedisStreaks`: pauses a trigger whose deliveries all die of one cause."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import redis.asyncio
import structlog

from worker.adapters.redis import scripts
from worker.adapters.redis.scripts import until_confirmed
from worker.batch.letters import Obituary
from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.triggers.pauses import TRIGGER, Pause, dumps, field_of
from worker.contract.words import Death
from worker.core.messages import normalise_message

DEATHS_IN_A_ROW: Final = 500
KILLS_IN_A_ROW: Final = 5
"""The most deliveries in a row that may kill a process; each uses up the time limit twice."""
LOG: Final = structlog.get_logger()


class RedisStreaks:
    """Counts streaks over all workers; see `worker.batch.concluding.settle.Streaks`.

    Args:
        client: Repeats nothing by itself.
        running: Triggers that have a streak, so that `broken` costs nothing elsewhere.
        may_repeat: Says whether a question that Redis did not answer should still be repeated.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        running: Iterable[str] = (),
        *,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client = client
        self._may_repeat = may_repeat
        self._running = set(running)

    async def may_die(self, trigger: str, obituary: Obituary, count: int) -> int:
        """Return how many of these deliveries may die; if not all may, the trigger is paused.

        It is asked between an answer and its settlement, so it is repeated like that.
        """
        self._running.add(trigger)
        args = (
            trigger,
            obituary.cause,
            count,
            most_in_a_row(obituary.reason),
            field_of(TRIGGER, trigger),
            _pause_text(obituary),
            secrets.token_hex(8),
        )

        async def ask() -> int:
            with redis_errors():
                return int(
                    await scripts.call(self._client, "streak", (keys.STREAKS, keys.PAUSED), args)
                )

        may_die = await until_confirmed(ask, self._may_repeat)
        if may_die < count:
            _log_paused(trigger, obituary)
        return may_die

    async def broken(self, trigger: str) -> None:
        """End a trigger's streak, because one of its deliveries was made."""
        if trigger in self._running:
            self._running.discard(trigger)
            with redis_errors():
                await scripts.command(self._client, "HDEL", keys.STREAKS, trigger)

    async def pause(self, trigger: str, obituary: Obituary) -> None:
        """Pause a trigger whose deliveries all die of one cause, and name it as the reason."""
        if await self._pause(trigger, _pause_text(obituary)):
            _log_paused(trigger, obituary)

    async def stop(self, trigger: str, reason: str) -> None:
        """Pause a trigger for a reason other than a streak of dead deliveries."""
        if await self._pause(trigger, _text_of(reason)):
            LOG.error("trigger.paused", trigger=trigger, reason=reason)

    async def _pause(self, trigger: str, text: bytes) -> bool:
        with redis_errors():
            fields = (field_of(TRIGGER, trigger), text)
            return bool(await scripts.call(self._client, "pause", (keys.PAUSED,), fields))


def _log_paused(trigger: str, obituary: Obituary) -> None:
    LOG.error("trigger.paused", trigger=trigger, reason=obituary.reason, cause=obituary.cause)


def most_in_a_row(reason: Death) -> int:
    """Return how many deliveries in a row may die of one cause before their trigger is paused."""
    return KILLS_IN_A_ROW if reason is Death.KILLED_WORKER else DEATHS_IN_A_ROW


def _pause_text(obituary: Obituary) -> bytes:
    reason = (
        f"everything dies of one cause ({obituary.cause}): {normalise_message(obituary.message)}"
    )
    return _text_of(reason)


def _text_of(reason: str) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return dumps(Pause(reason, "segrelay", at))

"""The intake: bodies that arrive together share one write, and each gets its own answer.

While one write is under way, what arrives waits for the next. So a receiver under load makes few
large writes, and an idle one writes at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import structlog

from worker.errors import SegrelayError

GROUP_BODIES: Final = 1_000
GROUP_BYTES: Final = 4 * 1024 * 1024
LOG: Final = structlog.get_logger()


class Stored(NamedTuple):
    """What became of one body.

    Attributes:
        accepted: Deliveries that are in Redis now.
        quarantined: Events and payloads that could not be placed, and are kept.
        problem: Why the first of these could not be placed; "" if there is none.
    """

    accepted: int
    quarantined: int
    problem: str = ""


class Stores(Protocol):
    """Whoever stores bodies; called from one thread."""

    def store(self, bodies: Sequence[bytes]) -> Sequence[Stored]:
        """Store each body, in streams or quarantine; all of them are safe when it returns.

        Raises:
            RedisUnavailable: Redis is full or away; some of them may be stored.
        """
        ...


@dataclass(slots=True)
class Intake:
    """Groups bodies and has them stored, one group at a time, in a thread of its own."""

    stores: Stores
    _waiting: deque[tuple[bytes, asyncio.Future[Stored]]] = field(default_factory=deque)
    _writing: asyncio.Task[None] | None = None
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="intake")
    )

    async def take(self, body: bytes) -> Stored:
        """Store one body together with those that arrive meanwhile.

        Raises:
            RedisUnavailable: It may not be stored; the sender should send it again.
        """
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, future))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_all())
        return await future

    async def close(self) -> None:
        """Store what still waits."""
        while self._writing is not None:
            await asyncio.wait({self._writing})
        self._thread.shutdown()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write(self._next_group())
        finally:
            self._writing = None

    def _next_group(self) -> list[tuple[bytes, asyncio.Future[Stored]]]:
        group: list[tuple[bytes, asyncio.Future[Stored]]] = []
        size = 0
        while self._waiting and len(group) < GROUP_BODIES and size < GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += len(group[-1][0])
        return group

    async def _write(self, group: list[tuple[bytes, asyncio.Future[Stored]]]) -> None:
        try:
            results = await self._store([body for body, _ in group])
        except SegrelayError as error:
            for _, future in group:
                _fail(future, error)
        except Exception as error:  # noqa: BLE001 - one body must not cost its neighbours anything
            LOG.error(  # noqa: TRY400 - a traceback may hold a profile
                "webhook.failed", bodies=len(group), error=type(error).__name__
            )
            await self._write_alone(group, error)
        else:
            for (_, future), stored in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(stored)

    async def _write_alone(
        self, group: list[tuple[bytes, asyncio.Future[Stored]]], error: Exception
    ) -> None:
        """Store the bodies of a group that failed one by one, so that one of them fails alone."""
        if len(group) == 1:
            _fail(group[0][1], error)
            return
        for each in group:
            await self._write([each])

    async def _store(self, bodies: list[bytes]) -> Sequence[Stored]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.stores.store, bodies)


def _fail(future: asyncio.Future[Stored], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

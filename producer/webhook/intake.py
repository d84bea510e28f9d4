"""The intake: bodies that arrive together share one write, and each gets its own answer.

While one write is under way, what arrives waits for the next. So a receiver under load makes few
large writes, and an idle one writes at once. A body that is more than one write's share is stored
in portions: each write takes a portion of one of these, and then the bodies that have just come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog

from producer.publish import Publisher
from producer.publishing.published import Portion, Published
from producer.webhook.bodies import Body
from worker.errors import SegrelayError

GROUP_BODIES: Final = 1_000
GROUP_BYTES: Final = 4 * 1024 * 1024
LOG: Final = structlog.get_logger()

StoreBodies = Callable[[Sequence[Body]], int]
"""A function that stores a portion of each of the first bodies, and returns their number (≥ 1).

Each body knows afterwards how much of it is stored. Raises RedisUnavailable if Redis is full or
away; some of the portions may be stored.
"""


class _Waiting(NamedTuple):
    """A body, and the answer that its request waits for."""

    body: Body
    answer: asyncio.Future[Published]


@dataclass(slots=True)
class Intake:
    """Groups bodies and has them stored, one group at a time, in a thread of its own."""

    store: StoreBodies
    _fresh: deque[_Waiting] = field(default_factory=deque)
    _begun: deque[_Waiting] = field(default_factory=deque)
    _writing: asyncio.Task[None] | None = None
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="intake")
    )

    async def take(self, body: Body) -> Published:
        """Store one body together with those that arrive meanwhile.

        Raises:
            RedisUnavailable: Not all of it may be stored; the sender should send it again.
            BodyTooLarge: It holds more payloads than are taken; nothing of it is stored.
        """
        answer: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._fresh.append(_Waiting(body, answer))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_all())
        return await answer

    async def close(self) -> None:
        """Store what still waits."""
        while self._writing is not None:
            await asyncio.wait({self._writing})
        self._thread.shutdown()

    async def _write_all(self) -> None:
        try:
            while self._fresh or self._begun:
                await self._write(self._next_group())
        finally:
            self._writing = None

    def _next_group(self) -> list[_Waiting]:
        group = [self._begun.popleft()] if self._begun else []
        size = 0
        while self._fresh and len(group) < GROUP_BODIES and size < GROUP_BYTES:
            group.append(self._fresh.popleft())
            size += len(group[-1].body.text)
        return group

    async def _write(self, group: list[_Waiting]) -> None:
        try:
            reached = await self._store([body for body, _ in group])
        except SegrelayError as error:
            for _, answer in group:
                _fail(answer, error)
        except Exception as error:  # noqa: BLE001 - one body must not cost its neighbours anything
            LOG.error(  # noqa: TRY400 - a traceback may hold a profile
                "webhook.failed", bodies=len(group), error=type(error).__name__
            )
            await self._write_alone(group, error)
        else:
            self._fresh.extendleft(reversed(group[reached:]))
            for each in group[:reached]:
                self._conclude(each)

    def _conclude(self, waiting: _Waiting) -> None:
        body, answer = waiting
        if not body.is_ended:
            self._begun.append(waiting)
        elif body.refusal is not None:
            _fail(answer, body.refusal)
        elif not answer.done():
            answer.set_result(body.stored)

    async def _write_alone(self, group: list[_Waiting], error: Exception) -> None:
        """Store the bodies of a failed group one by one, so that only the bad ones fail."""
        if len(group) == 1:
            _fail(group[0].answer, error)
            return
        for each in group:
            await self._write([each])

    async def _store(self, bodies: list[Body]) -> int:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.store, bodies)


def _fail(answer: asyncio.Future[Published], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


PORTION: Final = Portion(1_000, 4 * 1024 * 1024)
"""The events and bytes of one body in one write: a body of Lytics, at most 0.1 s of work."""
_TOGETHER: Final = Portion(2_000, 8 * 1024 * 1024)
"""The events and bytes of all bodies in one write."""


def store_bodies(publisher: Publisher, bodies: Sequence[Body]) -> int:
    """Publish a portion of each body; see `StoreBodies`."""
    published = publisher.publish_each(
        (body.payloads() for body in bodies), portion=PORTION, together=_TOGETHER
    )
    for body, each in zip(bodies, published, strict=False):
        body.advance(each)
    return len(published)

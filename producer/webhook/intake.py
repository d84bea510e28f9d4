"""The intake: bodies that arrive together share one write, and each gets its own answer.

While one write is under way, what arrives waits for the next. So a receiver under load makes few
large writes, and an idle one writes at once. A body that is more than one write's share is stored
in portions: each write takes a portion of one of these, and then the bodies that have just come.
The log's lines about the requests of one write are written together, before any is answered.
The answers, and how late the receiver's timers are, are kept for `segrelay status`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import structlog

from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import Portion, Published
from segrelay.producer.webhook.bodies import Body
from segrelay.worker.contract.receivers import MOST_REQUESTS, WebhookRequest
from segrelay.worker.errors import RedisMismatch, RedisUnavailable, SegrelayError
from segrelay.worker.logs import log_often

GROUP_BODIES: Final = 1_000
GROUP_BYTES: Final = 4 * 1024 * 1024
LOG: Final = structlog.get_logger()

StoreBodies = Callable[[Sequence[Body]], int]
"""A function that stores a portion of each of the first bodies, and returns their number (≥ 1).

Each body knows afterwards how much of it is stored. Raises RedisUnavailable if Redis is full or
away; some of the portions may be stored.
"""


LineOf = Callable[[Published], Mapping[str, object]]
"""A function that returns a request's line for the log from the counts of its events."""


class _Waiting(NamedTuple):
    """A body, the answer that its request waits for, and the log's line about it."""

    body: Body
    answer: asyncio.Future[Published]
    line: LineOf | None


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

    async def take(self, body: Body, line: LineOf | None = None) -> Published:
        """Store one body together with those that arrive meanwhile.

        Args:
            body: The body of one request.
            line: The function that makes its line of the log; None = it is not logged.

        Raises:
            RedisUnavailable: Not all of it may be stored; the sender should send it again.
            BodyTooLarge: It holds more payloads than are taken; nothing of it is stored.
        """
        answer: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._fresh.append(_Waiting(body, answer, line))
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
            reached = await self._store([each.body for each in group])
        except SegrelayError as error:
            for each in group:
                _fail(each.answer, error)
        except Exception as error:  # noqa: BLE001 - one body must not cost its neighbours anything
            LOG.error(  # noqa: TRY400 - a traceback may hold a profile
                "webhook.failed", bodies=len(group), error=type(error).__name__
            )
            await self._write_alone(group, error)
        else:
            self._fresh.extendleft(reversed(group[reached:]))
            _log(group[:reached])
            for each in group[:reached]:
                self._conclude(each)

    def _conclude(self, waiting: _Waiting) -> None:
        body, answer, _ = waiting
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


def _log(group: Iterable[_Waiting]) -> None:
    """Log the bodies that are stored; they are answered also where the disk of the log is full."""
    stored = [each for each in group if each.body.is_ended and each.body.refusal is None]
    lines = [one.line(one.body.stored) for one in stored if one.line]
    with suppress(OSError):
        log_often("webhook.answered", lines)


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


EVERY_SECONDS: Final = 5.0
ENDS: Final = -1
_OK: Final = 200
_UNAUTHORIZED: Final = 401


class AnswerListener(Protocol):
    """Writes counts of the webhook's answers to Redis, as `receivers.report_receiver` does."""

    def __call__(
        self,
        answers: Mapping[int, int],
        since_taken: Mapping[int, int],
        *,
        lag_ms: int,
        events: bool,
    ) -> None:
        """Add the answers since the last report, and those of them that came after the last 200."""


@dataclass(slots=True)
class AnswerRecord:
    """Counts answers in memory, and reports them every few seconds, so that no request waits.

    Args:
        tell: Writes them to Redis.
        look: Called before; looks whether Redis still holds what it held.
        keep: Keeps the requests in Redis.
    """

    tell: AnswerListener
    look: Callable[[], None] = lambda: None
    keep: Callable[[Sequence[WebhookRequest]], None] = lambda _: None
    every_seconds: float = EVERY_SECONDS
    _answers: Counter[int] = field(default_factory=Counter)
    _since_taken: Counter[int] = field(default_factory=Counter)
    _requests: deque[WebhookRequest] = field(default_factory=lambda: deque(maxlen=MOST_REQUESTS))

    def note(self, request: WebhookRequest) -> None:
        """Count an answer, and remember its request."""
        self._answers[request.status] += 1
        if request.status == _OK:
            self._since_taken.clear()
        else:
            self._since_taken[request.status] += 1
        self._requests.append(request)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Report the answers while the receiver runs, and once more at its end."""
        task = asyncio.create_task(self._report_again())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await asyncio.to_thread(self._flush, ENDS)

    async def _report_again(self) -> None:
        lag_ms = 0
        while True:
            await asyncio.to_thread(self._flush, lag_ms)
            due_at = time.monotonic() + self.every_seconds
            await asyncio.sleep(self.every_seconds)
            lag_ms = round(1_000 * (time.monotonic() - due_at))

    def _flush(self, lag_ms: int) -> None:
        answers, self._answers = self._answers, Counter()
        since_taken, self._since_taken = self._since_taken, Counter()
        if answers[_UNAUTHORIZED]:
            LOG.warning("webhook.unauthorized", requests=answers[_UNAUTHORIZED])
        requests = [self._requests.popleft() for _ in range(len(self._requests))]
        try:
            self.look()
            self.keep(requests)
            self.tell(answers, since_taken, lag_ms=lag_ms, events=bool(answers[_OK]))
        except (RedisUnavailable, RedisMismatch):
            if not self._answers[_OK]:
                self._since_taken.update(since_taken)
            self._answers.update(answers)  # told with the next ones
            self._requests.extendleft(reversed(requests[: MOST_REQUESTS - len(self._requests)]))

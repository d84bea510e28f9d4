"""Keeps what the receiver answers, and how late its timers are, for `segrelay status`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from worker.contract.processes.webhook_requests import MOST_REQUESTS, WebhookRequest
from worker.errors import RedisMismatch, RedisUnavailable

EVERY_SECONDS: Final = 5.0
ENDS: Final = -1
_OK: Final = 200
_UNAUTHORIZED: Final = 401
LOG: Final = structlog.get_logger()


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

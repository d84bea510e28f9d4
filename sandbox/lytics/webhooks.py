"""Webhook jobs, which send changes of membership as audience triggers, with Lytics' retries.

A request is answered 200, or it is tried again, except 400, 404 and 413: its events are omitted for
good. Ten failures in a row put the whole job to sleep, each time twice as long.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

import httpx
import orjson
from pydantic import Field

from segrelay.sandbox.lytics.account import Account, Move, audience_id
from segrelay.sandbox.settings import LyticsSwitches, SandboxTable

_OMITTED: Final = frozenset({400, 404, 413})
_FAILURES_UNTIL_SLEEP: Final = 10
_TIMEOUT_SECONDS: Final = 10.0
_GIVES_UP_SECONDS: Final = 7_200.0
_LONGEST_RETRY_AFTER_SECONDS: Final = 60.0


class WebhookJob(SandboxTable):
    """A job as a person sets it up at Lytics; the names are those of its live settings."""

    webhook_url: str
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    segment_ids: tuple[str, ...] = ()
    """Slugs or ids of the audiences whose changes are sent; none = all."""
    include_segs: bool = False
    batch_requests: bool = False
    batch_size: int = Field(default=10, ge=1, le=1_000)
    batch_flush_duration: float = Field(default=0.2, ge=0)
    """Seconds for which a batch that is not full waits."""
    worker_count: int = Field(default=5, ge=1, le=32)
    cloud_events: bool = False
    compressed: bool = False
    """Compress bodies with gzip."""

    def wants(self, move: Move) -> bool:
        """Say whether this job sends a move."""
        return not self.segment_ids or bool(
            {move.slug, audience_id(move.slug)} & {*self.segment_ids}
        )


class WebhookSender:
    """The sender of one job; its tasks run in the server's event loop until it is closed."""

    def __init__(self, job: WebhookJob, account: Account, switches: LyticsSwitches) -> None:
        self.job = job
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.state = "running"
        self._account = account
        self._switches = switches
        self._queue: deque[Move] = deque()
        self._has_moves = asyncio.Event()
        self._in_flight = 0
        self._failures = 0
        self._sleeps = 0
        self._awake_at = 0.0
        self._last_success = time.monotonic()
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS)
        self._tasks = [asyncio.ensure_future(self._run()) for _ in range(job.worker_count)]

    def add(self, move: Move) -> None:
        """Put a move into the queue, if the job wants it."""
        if self.job.wants(move):
            self._queue.append(move)
            self._has_moves.set()
            self.counts["events"] += 1

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def shown(self) -> dict[str, Any]:
        return {
            "state": "sleeping" if self._awake_at > time.monotonic() else self.state,
            "waiting": len(self._queue),
            "in_flight": self._in_flight,
            **{name: self.counts[name] for name in ("events", "sent", "omitted", "requests")},
            "by_status": dict(self.statuses),
        }

    async def _run(self) -> None:
        while True:
            if not self._queue or self.state == "failed":
                self._has_moves.clear()
                await self._has_moves.wait()
                continue
            if self.job.batch_requests and len(self._queue) < self.job.batch_size:
                await asyncio.sleep(self.job.batch_flush_duration)
            size = self.job.batch_size if self.job.batch_requests else 1
            moves = [self._queue.popleft() for _ in range(min(size, len(self._queue)))]
            if moves:
                self._in_flight += len(moves)
                await self._deliver(moves)
                self._in_flight -= len(moves)

    async def _deliver(self, moves: list[Move]) -> None:
        body = self._body(moves)
        while self.state != "failed":
            await asyncio.sleep(max(0.0, self._awake_at - time.monotonic()))
            status, retry_after = await self._post(body)
            self.counts["requests"] += 1
            self.statuses[str(status or "no answer")] += 1
            if status == 200:  # noqa: PLR2004 - HTTP
                self._failures = self._sleeps = 0
                self._last_success = time.monotonic()
                self.counts["sent"] += len(moves)
                return
            if status in _OMITTED:
                self.counts["omitted"] += len(moves)
                return
            self._note_failure()
            await asyncio.sleep(retry_after or self._switches.webhook_retry_seconds)

    def _note_failure(self) -> None:
        self._failures += 1
        if time.monotonic() - self._last_success > _GIVES_UP_SECONDS:
            self.state = "failed"
        elif self._failures >= _FAILURES_UNTIL_SLEEP:
            self._failures = 0
            self._awake_at = (
                time.monotonic() + self._switches.webhook_sleep_seconds * 2**self._sleeps
            )
            self._sleeps += 1

    async def _post(self, body: bytes) -> tuple[int, float]:
        headers = {"content-type": "application/json", **self.job.headers}
        if self.job.compressed:
            headers["content-encoding"], body = "gzip", gzip.compress(body, 1)
        try:
            answer = await self._client.post(self.job.webhook_url, content=body, headers=headers)
        except (httpx.HTTPError, AttributeError):
            # httpx asks a connection for its socket, and uvloop has none of one that ended at once.
            return 0, 0.0
        return answer.status_code, _seconds(answer.headers.get("retry-after", ""))

    def _body(self, moves: list[Move]) -> bytes:
        payloads = [self._payload(move) for move in moves]
        if self.job.cloud_events:
            payloads = [_cloud_event(payload) for payload in payloads]
        return orjson.dumps(payloads if self.job.batch_requests else payloads[0])

    def _payload(self, move: Move) -> dict[str, Any]:
        profile = self._account.profiles[move.uid]
        fields = dict(profile.fields)
        if self.job.include_segs:
            fields["segments_all"] = sorted(profile.segments)
        entry = {"id": audience_id(move.slug), "slug": move.slug, "event": move.change}
        data = {**fields, "segment_events": [{**entry, move.change: move.at}]}
        meta = {"object": "user", "subscription_id": "f" * 32, "timestamp": move.at}
        number = int.from_bytes(move.uid.encode()[-7:]) + 10**18
        return {"id": str(number), "data": data, "meta": meta}


def _cloud_event(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"{payload['id']}-{payload['meta']['timestamp']}",
        "source": "lytics",
        "type": "com.lytics.audience.user.event",
        "datacontenttype": "application/json",
        "time": payload["meta"]["timestamp"],
        "data": payload["data"],
    }


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), _LONGEST_RETRY_AFTER_SECONDS) if retry_after.isdecimal() else 0.0

"""Stores what the receiver takes: the publisher's side of the intake, readiness and checks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from producer.doorbell import BackgroundDoorbell
from producer.publish import Publisher
from producer.publishing.published import Published
from producer.publishing.room import Fill, NoRoom
from producer.webhook.intake import Stored
from worker.contract.settings import Settings
from worker.errors import SegrelayError


class PublisherStores:
    """Stores bodies with a publisher; its bells are rung by a thread, never by a request."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._publisher = Publisher(client, settings, doorbell=BackgroundDoorbell(settings))

    def store(self, bodies: Sequence[bytes]) -> list[Stored]:
        """Store each body; see `intake.Stores`."""
        return [_stored(each) for each in self._publisher.publish_each([b] for b in bodies)]


@dataclass(slots=True)
class Inspector:
    """Answers checks: whether anything can be stored, and what would become of a body.

    Args:
        client: Of its own, with short timeouts: nobody waits for a request behind it.
    """

    client: Redis
    settings: Settings
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def why_not_ready(self) -> str:
        """Say why nothing can be stored now; "" = it can."""
        with self._lock:
            try:
                room = Fill(self.client, self.settings).memory()
            except SegrelayError as error:
                return error.message
            return room.message if isinstance(room, NoRoom) else ""

    def inspect(self, body: bytes) -> dict[str, Any]:
        """Return what would become of a body.

        Raises:
            RedisUnavailable: Redis can't be asked.
        """
        with self._lock:
            published = Publisher(self.client, self.settings, dry_run=True).publish([body])
        return published.document()


def _stored(published: Published) -> Stored:
    problem = f"{p.reason}: {p.message}" if (p := next(iter(published.problems), None)) else ""
    return Stored(published.accepted, published.refused + published.unmatched, problem)

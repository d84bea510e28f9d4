"""Stores what the receiver takes: the publisher's side of the intake, readiness and checks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from producer.doorbell import BackgroundDoorbell
from producer.publish import Publisher
from producer.publishing.published import Portion, Published
from producer.publishing.room import Fill, NoRoom
from producer.webhook.bodies import Body, Stored
from worker.contract.refused_requests import count_too_large, too_large
from worker.contract.settings import Settings
from worker.errors import SegrelayError

_PORTION: Final = Portion(1_000, 4 * 1024 * 1024)
"""Of one body in one write: all of what Lytics sends, and at most a tenth of a second's work."""
_TOGETHER: Final = Portion(2_000, 8 * 1024 * 1024)
"""Of all bodies in one write."""


class PublisherStores:
    """Stores bodies with a publisher; its bells are rung by a thread, never by a request."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._publisher = Publisher(client, settings, doorbell=BackgroundDoorbell(settings))

    def store(self, bodies: Sequence[Body]) -> int:
        """Store a portion of each body; see `intake.Stores`."""
        published = self._publisher.publish_each(
            (body.payloads() for body in bodies), portion=_PORTION, together=_TOGETHER
        )
        for body, each in zip(bodies, published, strict=False):
            body.advance(_stored(each))
        return len(published)


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

    def inspect(self, body: Body) -> dict[str, Any]:
        """Return what would become of a body, or of its first 1,000 payloads.

        Raises:
            RedisUnavailable: Redis can't be asked.
            BodyTooLarge: It holds more payloads than are taken.
        """
        with self._lock:
            publisher = Publisher(self.client, self.settings, dry_run=True)
            (published,) = publisher.publish_each(
                [body.payloads()], portion=_PORTION, together=_PORTION
            )
            if body.refusal is not None:
                raise body.refusal
            return published.document() | {"refused_as_too_large": too_large(self.client)}

    def count_too_large(self) -> None:
        """Count a request that was refused because it is too large.

        Raises:
            RedisUnavailable: Redis can't be asked; the log has it.
        """
        with self._lock:
            count_too_large(self.client)


def _stored(published: Published) -> Stored:
    problem = f"{p.reason}: {p.message}" if (p := next(iter(published.problems), None)) else ""
    kept = published.refused + published.unmatched
    return Stored(published.accepted, kept, problem, published.people)

"""Checks of the receiver: whether anything can be stored, and what would become of a body."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from producer.publish import Publisher
from producer.publishing.room import NoRoom, RoomMeter
from producer.webhook.bodies import Body
from producer.webhook.intake import PORTION
from worker.contract.processes.receivers import count_too_large, too_large
from worker.contract.settings import Settings
from worker.errors import SegrelayError


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
                room = RoomMeter(self.client, self.settings).memory()
            except SegrelayError as error:
                return error.message
            return room.message if isinstance(room, NoRoom) else ""

    def inspect(self, body: Body) -> dict[str, Any]:
        """Return what would become of a body, or of its first 1,000 payloads.

        Raises:
            BodyTooLarge: It holds more payloads than are taken.
        """
        with self._lock:
            publisher = Publisher(self.client, self.settings, dry_run=True)
            (published,) = publisher.publish_each(
                [body.payloads()], portion=PORTION, together=PORTION
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

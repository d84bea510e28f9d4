"""Counts the bytes of bodies that are in memory, so that they stay within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from producer.webhook.bodies import SMALL_BYTES

LARGE_BODIES_BYTES: Final = 48 * 1024 * 1024
"""The bytes of other requests above which the sender of a large body is asked to send it again."""
ALL_BODIES_BYTES: Final = 2 * LARGE_BODIES_BYTES
"""The bytes of other requests above which the sender of any body is asked to send it again."""


class NoMemory(Exception):  # noqa: N818 - an answer, no error of ours
    """Too many bytes are in memory for this body; it should be sent again."""


@dataclass(slots=True)
class BodyMemory:
    """The bytes of all requests that are not answered yet."""

    used: int = 0

    @contextmanager
    def held(self) -> Iterator[HeldMemory]:
        """Count the bytes of one request until it is answered."""
        own = HeldMemory(self)
        try:
            yield own
        finally:
            self.used -= own.size


@dataclass(slots=True)
class HeldMemory:
    """The bytes of one request."""

    memory: BodyMemory
    size: int = 0

    def take(self, size: int) -> None:
        """Add a number of bytes to the count.

        Raises:
            NoMemory: The others take too much.
        """
        self.size += size
        self.memory.used += size
        most = ALL_BODIES_BYTES if self.size <= SMALL_BYTES else LARGE_BODIES_BYTES
        if self.memory.used - self.size > most:
            raise NoMemory

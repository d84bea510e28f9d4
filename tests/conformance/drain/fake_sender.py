"""A sender without a network: a function answers. Keeps the promises of `Sender`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from segrelay.worker.adapters.sender import refuse
from segrelay.worker.destinations.api import (
    Answer,
    NoAnswer,
    OutgoingRequest,
    Permit,
    Silence,
    granted,
)

Respond = Callable[[OutgoingRequest], Awaitable[Answer | NoAnswer]]


class FakeSender:
    """Hands each request to `respond` and remembers it.

    Args:
        respond: What stands for the destination; may wait, and is cut at the deadline.
        connected: What happens once there is a connection, before the permit is asked for.
    """

    def __init__(self, respond: Respond, connected: Callable[[], None] = lambda: None) -> None:
        self._respond = respond
        self._connected = connected
        self.sent: list[OutgoingRequest] = []

    async def send(
        self, request: OutgoingRequest, deadline_seconds: float, permit: Permit = granted
    ) -> Answer | NoAnswer:
        """Let the function answer, within the deadline."""
        refuse(request)
        is_written = False
        try:
            async with asyncio.timeout(deadline_seconds):
                self._connected()
                if not await permit():
                    return NoAnswer(Silence.WITHHELD, possibly_applied=False)
                is_written = True
                self.sent.append(request)
                return await self._respond(request)
        except TimeoutError:
            return NoAnswer(Silence.DEADLINE, possibly_applied=is_written)

    async def close(self) -> None:
        """Do nothing: there is no connection."""

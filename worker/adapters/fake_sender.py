"""A sender without a network: a function answers. Keeps the promises of `Sender`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from worker.adapters.sender import refuse
from worker.destinations.api import Answer
from worker.destinations.sending import NoAnswer, OutgoingRequest, Silence

Respond = Callable[[OutgoingRequest], Awaitable[Answer | NoAnswer]]


class FakeSender:
    """Hands each request to `respond` and remembers it.

    Args:
        respond: What stands for the destination; may wait, and is cut at the deadline.
    """

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self.sent: list[OutgoingRequest] = []

    async def send(self, request: OutgoingRequest, deadline_seconds: float) -> Answer | NoAnswer:
        """Let the function answer, within the deadline."""
        refuse(request)
        self.sent.append(request)
        try:
            async with asyncio.timeout(deadline_seconds):
                return await self._respond(request)
        except TimeoutError:
            return NoAnswer(Silence.DEADLINE, possibly_applied=True)

    async def close(self) -> None:
        """Do nothing: there is no connection."""

"""Sends requests with the token of their authorization, and asks for another one after a 401."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from worker.core.verdicts import TokenReplaced
from worker.destinations.api import Answer
from worker.destinations.sending import (
    NoAnswer,
    NoToken,
    OutgoingRequest,
    Permit,
    Sender,
    Silence,
    granted,
)
from worker.destinations.tokens import AccessToken, Tokens, with_token

_UNAUTHORIZED: Final = 401
_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class AuthorizedSender:
    """A sender that adds tokens to requests; see `worker.destinations.sending.Sender`.

    A 401 never sends a request again by itself: the drain does, through the gate.

    Args:
        sender: Sends what is complete.
        tokens: By the names of authorizations that use tokens.
    """

    sender: Sender
    tokens: Mapping[str, Tokens]

    async def send(
        self, request: OutgoingRequest, deadline_seconds: float, permit: Permit = granted
    ) -> Answer | NoAnswer:
        """Send one request; see `Sender.send`."""
        if not request.authorization:
            return await self.sender.send(request, deadline_seconds, permit)
        tokens = self.tokens[request.authorization]
        token = await tokens.token()
        if not isinstance(token, AccessToken):
            return NoToken(Silence.TOKEN, possibly_applied=False, why=token)
        complete = replace(
            request,
            headers=with_token(request.headers, token.text),
            params=with_token(request.params, token.text),
        )
        answer = await self.sender.send(complete, deadline_seconds, permit)
        if isinstance(answer, Answer) and answer.status == _UNAUTHORIZED:
            if await tokens.refused(token):
                return NoToken(Silence.TOKEN, possibly_applied=False, why=TokenReplaced())
            return answer
        if isinstance(answer, Answer) and answer.status in _SUCCESS:
            await tokens.accepted(token)
        return answer

    async def close(self) -> None:
        """Give the connections back."""
        await self.sender.close()

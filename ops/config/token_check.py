"""Asking for a token of each OAuth2 authorization, to see whether one is issued."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from ops.insider.live_check import LiveFinding
from worker.adapters.sender import HttpSender
from worker.contract.settings import Authorization, Settings
from worker.core.verdicts import Verdict
from worker.destinations.tokens import Granted, read_grant, token_request
from worker.errors import SegrelayError

_SECONDS: Final = 10.0


def check_tokens(settings: Settings) -> Iterator[LiveFinding]:
    """Yield a finding for each authorization that gets no token; the tokens are not kept."""
    for authorization in settings.authorizations.values():
        if not authorization.uses_token:
            continue
        place = f"authorizations.{authorization.name}"
        try:
            got = asyncio.run(_asked(authorization, ipv4_only=settings.delivery.ipv4_only))
        except SegrelayError as error:
            yield LiveFinding(place, "error", error.message)
        else:
            if not isinstance(got, Granted):
                yield LiveFinding(place, "error", str(getattr(got, "message", got)))


async def _asked(authorization: Authorization, *, ipv4_only: bool) -> Granted | Verdict:
    sender = HttpSender(ipv4_only=ipv4_only)
    try:
        answer = await sender.send(token_request(authorization), _SECONDS)
    finally:
        await sender.close()
    return read_grant(answer, authorization)

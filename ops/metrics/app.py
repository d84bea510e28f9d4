"""The HTTP side of the metrics: who may read them, and the application of `segrelay metrics`."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

PATH: Final = "/metrics"
_SCHEME: Final = "Bearer "


def metrics_route(text: Callable[[], bytes], token: str) -> Route:
    """Return the route at which the metrics are read.

    Args:
        text: Returns the page. Called from a thread.
        token: That a reader has to send; "" = anybody may read.
    """

    async def answer(request: Request) -> Response:
        if token and not _knows(request, token):
            return PlainTextResponse(
                "The token is missing or wrong: send metrics.token as `Authorization: Bearer`.\n",
                401,
                {"www-authenticate": "Bearer"},
            )
        page = await asyncio.to_thread(text)
        return Response(page, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Route(PATH, answer, methods=["GET"])


def build_metrics_app(text: Callable[[], bytes], token: str) -> Starlette:
    """Return the application of `segrelay metrics`."""

    async def is_alive(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    return Starlette(routes=[metrics_route(text, token), Route("/healthz", is_alive)])


def _knows(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    if not given.startswith(_SCHEME):
        return False
    return hmac.compare_digest(given.removeprefix(_SCHEME).strip().encode(), token.encode())

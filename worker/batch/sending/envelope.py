"""Envelopes: templates that make the whole body of a request from its array of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from worker.batch.parcel import Request
from worker.batch.preparing.render import RowRenderer
from worker.core.messages import normalise_message
from worker.jsonnet.rendered import Asserted, Killed, Rendered, Result, Row, TemplateFailed


async def enveloped(request: Request, renderer: RowRenderer) -> Request | str:
    """Return a request with its whole body, or the reason why its template makes none.

    A template that may end the process is rendered in another one.
    """
    route = request.parcels[0].route
    if route.envelope is None:
        return request
    rows = [row_of(request.body, route.settings)]
    safe = await renderer.render_safely(route.envelope, route.engine, rows, compares=True)
    result: Result | Killed | None = safe[0] if safe else None
    if result is None:
        found = await renderer.render(route.envelope, route.engine, rows, isolated=True)
        result = found[0] if found else None
    match result:
        case Rendered(body) if body[:1] in (b"{", b"["):
            return replace(request, body=body)
        case Asserted(message) | TemplateFailed(message):
            return f"{route.envelope.name}: {normalise_message(message)}"
        case Rendered():
            return f"{route.envelope.name} yields neither an object nor an array."
        case _:
            return f"{route.envelope.name} does not come to an end."


def row_of(array: bytes, settings: Mapping[str, Any]) -> Row:
    """Return the row that the template of an envelope renders: the array, as `results`."""
    return Row(b'{"results":' + array + b',"segment_events":[{}]}', settings)

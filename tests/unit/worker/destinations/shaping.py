"""Shaping a body of one user for Insider."""

from __future__ import annotations

from typing import Any

from ops.bench.shaping import occasion_of_sample
from worker.contract.words import Direction
from worker.destinations.api import NotSendable, Occasion, Shaped
from worker.destinations.insider.api import InsiderApi

API = InsiderApi()
UPSERT = occasion_of_sample()
DELETE = UPSERT._replace(url="/api/user/v1/attribute/delete", direction=Direction.EXIT)
PATCH = {"orders": [{"action": "push", "note": "", "id": None}]}
ANN = {"identifiers": {"email": "ann@example.com"}}


def shaped(user: dict[str, Any], occasion: Occasion = UPSERT, **root: Any) -> Shaped:
    result = API.shape({"users": [user], **root}, occasion)
    assert isinstance(result, Shaped), result
    return result


def refused(body: Any, occasion: Occasion = UPSERT) -> NotSendable:
    result = API.shape(body, occasion)
    assert isinstance(result, NotSendable), result
    return result


def event(**fields: Any) -> dict[str, Any]:
    return {"event_name": "lytics_trigger", "timestamp": "2026-11-01T10:00:00Z", **fields}

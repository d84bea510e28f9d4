"""Shaping a body of one user for Insider."""

from __future__ import annotations

from typing import Any

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import NotSendable, Shaped, ShapingRules
from segrelay.worker.destinations.insider.api import InsiderApi
from tools.bench.shaping import HEADER, NOW_US, RULES

API = InsiderApi()
UPSERT = (HEADER, RULES)
DELETE = (
    HEADER._replace(direction=Direction.EXIT),
    RULES._replace(url="/api/user/v1/attribute/delete"),
)
"""An event, and the rules of the trigger that wants it."""
PATCH = {"orders": [{"action": "push", "note": "", "id": None}]}
ANN = {"identifiers": {"email": "ann@example.com"}}


def shaped(
    user: dict[str, Any], event: tuple[Header, ShapingRules] = UPSERT, **root: Any
) -> Shaped:
    result = API.shape({"users": [user], **root}, *event, NOW_US)
    assert isinstance(result, Shaped), result
    return result


def refused(body: Any, event: tuple[Header, ShapingRules] = UPSERT) -> NotSendable:
    result = API.shape(body, *event, NOW_US)
    assert isinstance(result, NotSendable), result
    return result


def event(**fields: Any) -> dict[str, Any]:
    return {"event_name": "lytics_trigger", "timestamp": "2026-11-01T10:00:00Z", **fields}

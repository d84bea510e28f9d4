"""Shaping a body of one user for Insider."""

from __future__ import annotations

from typing import Any, Final

from segrelay.worker.checks.preview import sample_header
from segrelay.worker.contract.events import Header
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import NotSendable, Shaped, ShapingRules
from segrelay.worker.destinations.insider.api import InsiderApi

_EVENT_US: Final = 1_793_527_200_872_199
_DAY_US: Final = 86_400_000_000
_SCORES: Final = ("consistency", "frequency", "intensity", "maturity", "momentum", "propensity")
_UNSCORED: Final = ("quantity", "recency", "volatility")

HEADER: Final = sample_header("vip", Direction.ENTER, _EVENT_US)
"""The event of all sample bodies: an entrance."""
RULES: Final = ShapingRules("/api/user/v1/upsert", DEFAULT_AUDIENCE_ATTRIBUTE, "US")
"""The rules of the trigger for which all sample bodies are shaped."""
NOW_US: Final = _EVENT_US + _DAY_US
"""The time of the shaping, in µs: a day after the event."""

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


def body(number: int) -> dict[str, Any]:
    """Return the body that the template of Lytics' page renders for an invented entrance."""
    address = f"Ann{number}@example.com"
    custom: dict[str, Any] = {
        "status": "active",
        DEFAULT_AUDIENCE_ATTRIBUTE: ["vip", "new", "newsletter"],
        **{f"score_{name}": 40 + number % 60 for name in _SCORES},
        **{f"score_{name}": "" for name in _UNSCORED},
        "lytics_content": {"travel": 0.71, "sports": 0.2},
        "lytics_content_inferred": "",
        "lytics_rollup": {"travel": 0.5},
        "segment_prediction_percentile": "",
    }
    attributes = {
        "email": address,
        "phone_number": f"+1415{5_550_000 + number}",
        "name": "Ann",
        "surname": "Example",
        "gender": "F",
        "age": "34",
        "language": "en-US",
        "country": "US",
        "city": "Springfield",
        "email_optin": "t",
        "gdpr_optin": "",
        "sms_optin": "f",
        "whatsapp_optin": "",
        "custom": custom,
    }
    event = {"event_name": "lytics_trigger", "timestamp": "2026-11-01T10:00:00.872199615Z"}
    parameters = {"id": "0123456789abcdef", "audience": "vip", "trigger": "enter"}
    user = {
        "insider_id": "",
        "identifiers": {"email": address, "custom": {"lytics_id": "", "lytics_last_uid": "u1"}},
        "attributes": attributes,
        "not_append": True,
        "events": [event | {"event_params": {"custom": parameters | {"origin": "Lytics"}}}],
    }
    return {"users": [user]}

"""A benchmark of shaping: the processor time of a body, which is the best of some rounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from segrelay.worker.checks.preview import sample_header
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import Knowledge
from segrelay.worker.destinations.api import Shaped, ShapingRules
from segrelay.worker.destinations.insider.api import InsiderApi

_EVENT_US: Final = 1_793_527_200_872_199
_DAY_US: Final = 86_400_000_000
_SCORES: Final = ("consistency", "frequency", "intensity", "maturity", "momentum", "propensity")
_ROUNDS: Final = 7
_UNSCORED: Final = ("quantity", "recency", "volatility")

HEADER: Final = sample_header("vip", Direction.ENTER, _EVENT_US)
"""The event of all sample bodies: an entrance."""
RULES: Final = ShapingRules("/api/user/v1/upsert", DEFAULT_AUDIENCE_ATTRIBUTE, "US")
"""The rules of the trigger for which all sample bodies are shaped."""
NOW_US: Final = _EVENT_US + _DAY_US
"""The time of the shaping, in µs: a day after the event."""


def shape(events: int) -> dict[str, float]:
    """Measure the steps from a body's text to the request, in µs a body.

    The bodies are those of the template of the page that describes Lytics' workflow for Insider.
    """
    bodies = [body(number) for number in range(events)]
    api, event = InsiderApi(), (HEADER, RULES)
    shaped = [one for each in bodies if isinstance(one := api.shape(each, *event, NOW_US), Shaped)]
    newer = Knowledge(inside=frozenset({"churn"}), outside=frozenset({"new"}))
    return {
        "parse": _microseconds([orjson.dumps(one) for one in bodies], orjson.loads),
        "shape": _microseconds(bodies, lambda one: api.shape(one, *event, NOW_US)),
        "correct": _microseconds(shaped, lambda one: api.correct(one, *event, Knowledge())),
        "correct newer": _microseconds(shaped, lambda one: api.correct(one, *event, newer)),
        "identifiers": _microseconds(shaped, lambda one: api.identifiers(one.users[0])),
        "write": _microseconds(shaped, lambda one: orjson.dumps(one.users[0])),
    }


def _microseconds(inputs: list[Any], step: Callable[[Any], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.process_time()
        for one in inputs:
            step(one)
        best = min(best, time.process_time() - started)
    return round(best / len(inputs) * 1e6, 2)


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

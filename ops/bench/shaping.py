"""Measures what shaping costs: µs per body of the page's entrance template: best of some rounds.

Run: python -m ops.bench.shaping [--bodies N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from worker.contract.words import Direction
from worker.core.knowledge import Knowledge
from worker.destinations.api import Occasion, Shaped
from worker.destinations.insider.api import InsiderApi

_EVENT_US: Final = 1_793_527_200_872_199
_DAY_US: Final = 86_400_000_000
_SCORES: Final = ("consistency", "frequency", "intensity", "maturity", "momentum", "propensity")
_ROUNDS: Final = 7
_UNSCORED: Final = ("quantity", "recency", "volatility")


def main() -> None:
    """Print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bodies", type=int, default=1_000, help="as many as a drain reads")
    bodies = [body(number) for number in range(parser.parse_args().bodies)]
    api, occasion = InsiderApi(), occasion_of_sample()
    texts = [orjson.dumps(one) for one in bodies]
    _measure("parse", texts, orjson.loads)
    shaped = _measure("shape", bodies, lambda one: api.shape(one, occasion))
    whole = [one for one in shaped if isinstance(one, Shaped)]
    newer = Knowledge(inside=frozenset({"churn"}), outside=frozenset({"new"}))
    _measure("correct", whole, lambda one: api.correct(one, occasion, Knowledge()))
    _measure("correct, something newer", whole, lambda one: api.correct(one, occasion, newer))
    _measure("identifiers", whole, lambda one: api.identifiers(one.users[0]))
    _measure("write", whole, lambda one: orjson.dumps(one.users[0]))


def _measure(name: str, inputs: list[Any], step: Callable[[Any], Any]) -> list[Any]:
    best_seconds = float("inf")
    for _ in range(_ROUNDS):
        started = time.process_time()
        results = [step(one) for one in inputs]
        best_seconds = min(best_seconds, time.process_time() - started)
    print(f"{name:26} {best_seconds / len(inputs) * 1e6:6.2f} µs")  # noqa: T201 - its output
    return results


def occasion_of_sample() -> Occasion:
    """Return the occasion of every body here: an entrance, a day ago."""
    return Occasion(
        url="/api/user/v1/upsert",
        audience="vip",
        direction=Direction.ENTER,
        time_us=_EVENT_US,
        now_us=_EVENT_US + _DAY_US,
        skip_hook=False,
        repair=False,
        audience_attribute=DEFAULT_AUDIENCE_ATTRIBUTE,
        phone_region="US",
    )


def body(number: int) -> dict[str, Any]:
    """Return what the page's entrance template yields for an invented person."""
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


if __name__ == "__main__":
    main()

"""The paths below `/_sandbox/`, which report on the sandbox and change its switches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
from pydantic import ValidationError

from ops.sandbox.answer import Reply, error, json_answer
from ops.sandbox.exchange import Exchange
from ops.sandbox.lytics.api import CONTROL_PREFIX
from ops.sandbox.state import SandboxState
from worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE

PREFIX: Final = "/_sandbox/"
_LAST_REQUESTS: Final = "100"


def inspect(state: SandboxState, exchange: Exchange, body: bytes) -> Reply:
    """Answer one request below the prefix."""
    name = exchange.path.removeprefix(PREFIX)
    if name.startswith(CONTROL_PREFIX):
        return _lytics(state, exchange, body)
    routes = _CHANGES if exchange.method == "POST" else _REPORTS
    route = routes.get(name)
    if route is None:
        reports, changes = ", ".join(_REPORTS), ", ".join(_CHANGES)
        return error(404, f"nothing here: {name!r}; GET {reports}; POST {changes}")
    try:
        return route(state, exchange, body)
    except ValidationError as problems:
        return error(400, "; ".join(_described(problem) for problem in problems.errors()))
    except ValueError as problem:
        return error(400, str(problem))


def _lytics(state: SandboxState, exchange: Exchange, body: bytes) -> Reply:
    name = exchange.path.removeprefix(PREFIX + CONTROL_PREFIX)
    try:
        return state.lytics.control(exchange.method, name, exchange.queries, body)
    except (KeyError, TypeError, ValueError) as problem:
        return error(400, f"{type(problem).__name__}: {problem}")


def _profiles(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    if exchange.query("email"):
        return _profile(state, exchange, _body)
    limit, offset = int(exchange.query("limit", "0")), int(exchange.query("offset", "0"))
    return json_answer(200, state.profiles(limit, offset))


def _profile(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    key = exchange.query("key") or "email:" + exchange.query("email").lower()
    profile = state.insider.profiles.find((key,))
    if profile is None:
        return error(404, "no such profile")
    return json_answer(200, profile.shown())


def _events(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    email = exchange.query("email").lower()
    if email:
        profile = state.insider.profiles.find(("email:" + email,))
        return json_answer(200, profile.shown()["events"] if profile else [])
    last = [
        {"user": who, "event": orjson.Fragment(event)}
        for who, event in state.insider.profiles.latest_events
    ]
    return json_answer(200, {**state.events(), "last": last})


def _requests(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    return json_answer(200, state.requests(int(exchange.query("last", _LAST_REQUESTS))))


def _endpoints(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    last = int(exchange.query("last", _LAST_REQUESTS))
    return json_answer(200, state.catch_all.shown(last, exchange.query("endpoint")))


def _memberships(state: SandboxState, exchange: Exchange, _body: bytes) -> Reply:
    attribute = exchange.query("attribute", DEFAULT_AUDIENCE_ATTRIBUTE)
    return json_answer(200, state.insider.profiles.lists(attribute))


def _settings(state: SandboxState, _exchange: Exchange, _body: bytes) -> Reply:
    return json_answer(200, state.settings.model_dump(mode="json"))


def _change(state: SandboxState, exchange: Exchange, body: bytes) -> Reply:
    changes = orjson.loads(body or b"{}")
    if not isinstance(changes, dict):
        return error(400, "an object of settings is needed")
    state.change(changes)
    return _settings(state, exchange, body)


def _reset(state: SandboxState, _exchange: Exchange, _body: bytes) -> Reply:
    state.reset()
    return json_answer(200, {"ok": True})


def _report(
    make: Callable[[SandboxState], Any],
) -> Callable[[SandboxState, Exchange, bytes], Reply]:
    return lambda state, _exchange, _body: json_answer(200, make(state))


def _described(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])


_REPORTS: Final[dict[str, Callable[[SandboxState, Exchange, bytes], Reply]]] = {
    "health": _report(lambda _state: {"ok": True}),
    "summary": _report(SandboxState.summary),
    "profiles": _profiles,
    "profile": _profile,
    "memberships": _memberships,
    "events": _events,
    "requests": _requests,
    "endpoints": _endpoints,
    "drops": _report(SandboxState.drops),
    "overlaps": _report(SandboxState.overlaps),
    "repeats": _report(SandboxState.repeats),
    "merges": _report(lambda state: list(state.insider.profiles.merges)),
    "settings": _settings,
}
_CHANGES: Final[dict[str, Callable[[SandboxState, Exchange, bytes], Reply]]] = {
    "settings": _change,
    "reset": _reset,
}

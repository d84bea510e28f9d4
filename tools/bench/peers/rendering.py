"""Rendering and sending for the peers: from an event's JSON text to a request's path and body."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import phonenumbers

PATHS: Final = {"enter": "/api/user/v1/upsert", "exit": "/api/user/v1/attribute/delete"}
HEADERS: Final = {
    "x-partner-name": "acme",
    "x-request-token": "demo",
    "content-type": "application/json",
}
ENGINE_VARIABLE: Final = "PEER_ENGINE"
_OPT_INS: Final = ("email_optin", "gdpr_optin", "sms_optin", "whatsapp_optin")
_STATED: Final = {"t": True, "f": False}
_COUNTRIES: Final = {"United States": "US", "Germany": "DE"}
_LANGUAGES: Final = {"en-us": "en_US", "de": "de_DE"}
_HERE: Final = Path(__file__).parent


@cache
def client_of(pid: int) -> httpx.Client:  # noqa: ARG001 - the key of the cache
    """Return the HTTP client of a process; a client made before a fork can't be shared."""
    return httpx.Client(base_url=os.environ["PEER_SANDBOX"], timeout=20)


def direction_of(event: bytes) -> str:
    """Return `enter` or `exit`, the direction of an event."""
    kind: str = orjson.loads(event)["data"]["segment_events"][0]["event"]
    return kind


def rendered(event: bytes) -> tuple[str, bytes]:
    """Return path and body of the request for one event, rendered by the engine $PEER_ENGINE."""
    [request] = rendered_together([event])
    return request


def rendered_together(events: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """Return one request for each direction of the events, which are rendered one by one."""
    users: dict[str, list[Any]] = {}
    for event in events:
        direction = direction_of(event)
        body = orjson.loads(_evaluated(direction, event))
        users.setdefault(direction, []).extend(map(corrected, body["users"]))
    return [(PATHS[way], orjson.dumps({"users": many})) for way, many in users.items()]


def corrected(user: dict[str, Any]) -> dict[str, Any]:
    """Convert a user to the formats that Insider accepts: E.164, codes, numbers and booleans."""
    told = user.get("attributes", {})
    right = {**told, "phone_number": _phone(told.get("phone_number"))}
    right["age"] = int(told["age"]) if told.get("age") else None
    right["country"] = _COUNTRIES.get(told.get("country"), told.get("country"))
    right["language"] = _LANGUAGES.get(told.get("language"), told.get("language"))
    right |= {name: _STATED.get(told.get(name)) for name in _OPT_INS}
    attributes = {name: value for name, value in right.items() if value not in (None, "")}
    return {**user, "attributes": attributes} if told else user


def _phone(text: str | None) -> str | None:
    if not text:
        return None
    try:
        number = phonenumbers.parse(text, "US")
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _evaluated(direction: str, event: bytes) -> bytes:
    engine = import_module("rjsonnet" if _engine() == "rjsonnet" else "_jsonnet")
    text: str = engine.evaluate_snippet(
        f"{direction}.jsonnet", _source(direction), ext_codes={"event": event.decode()}
    )
    return text.encode()


@cache
def _engine() -> str:
    return os.environ.get(ENGINE_VARIABLE, "rjsonnet")


@cache
def _source(direction: str) -> str:
    return (_HERE / f"{direction}.jsonnet").read_text("utf-8")

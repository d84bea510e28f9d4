"""The template of all contestants, its evaluation by an engine, and the correction of its users.

The template is the page's own, `page_entrance.jsonnet`. As it is, Insider refuses everybody for
whom it has `insider_id: ""`, and drops what is a text in the place of a number or a boolean. So all
contestants correct users alike, by the fewest steps; the benchmark compares the profiles that
Insider's stand-in has in the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import phonenumbers

PAGE: Final = Path(__file__).parents[3] / "tests/conformance/templates/page_entrance.jsonnet"
PATH: Final = "/api/user/v1/upsert"
HEADERS: Final = {
    "x-partner-name": "acme",
    "x-request-token": "demo",
    "content-type": "application/json",
}
ENGINE: Final = os.environ.get("PEER_ENGINE", "rjsonnet")
REGION: Final = "US"
_TOGETHER: Final = 100
"""Events of one evaluation: rjsonnet needs more time for an event with fewer, and with more."""
_OPT_INS: Final = ("email_optin", "gdpr_optin", "sms_optin", "whatsapp_optin")
_STATED: Final = {"t": True, "f": False}
_COUNTRIES: Final = {"United States": "US", "Germany": "DE"}
_LANGUAGES: Final = {"en-us": "en_US", "de": "de_DE"}


def _snippet() -> str:
    """Return the page's template for a list of profiles, with a `get` that costs least."""
    imported, _, template = PAGE.read_text("utf-8").partition("\n")
    assert imported == 'local event = (import "lytemplates.libsonnet");'
    return (
        "local rendered(row) =\n"
        "local get(field, default) = if field in row then row[field] else default;\n"
        f"{template.replace('event.get(', 'get(').rstrip()};\n"
        '[rendered(row) for row in std.parseJson(std.extVar("profiles"))]'
    )


SNIPPET: Final = _snippet()
"""The template; evaluated with the external text `profiles`, it is the list of their bodies."""


@cache
def client_of(pid: int) -> httpx.Client:  # noqa: ARG001 - the key of the cache
    """Return the HTTP client of a process; a client made before a fork can't be shared."""
    return httpx.Client(base_url=os.environ["PEER_SANDBOX"], timeout=20, headers=HEADERS)


def body_of(events: Sequence[bytes]) -> bytes:
    """Return the body of one request for these events, rendered by the engine $PEER_ENGINE."""
    engine = import_module("rjsonnet" if ENGINE == "rjsonnet" else "_jsonnet")
    profiles = [orjson.dumps(orjson.loads(event)["data"]) for event in events]
    bodies = rendered(engine.evaluate_snippet, profiles)
    users = [corrected(user, phone) for body in bodies for user in body["users"]]
    return orjson.dumps({"users": users})


def rendered(evaluate: Callable[..., str], profiles: list[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the bodies of profiles, of which some are rendered in one evaluation."""
    for first in range(0, len(profiles), _TOGETHER):
        part = b",".join(profiles[first : first + _TOGETHER]).decode()
        yield from orjson.loads(evaluate("page", SNIPPET, ext_vars={"profiles": f"[{part}]"}))


def corrected(user: dict[str, Any], phone_of: Callable[[str], str | None]) -> dict[str, Any]:
    """Leave out what is empty, and convert the rest to the formats that Insider accepts."""
    given = user["attributes"]
    if not user["insider_id"]:
        del user["insider_id"]
    email = given["email"].strip().lower()
    user["identifiers"] = {"email": email, "custom": _pruned(user["identifiers"]["custom"])}
    given["email"] = email
    given["phone_number"] = phone_of(given["phone_number"])
    given["age"] = int(given["age"]) if given["age"] else None
    given["country"] = _COUNTRIES.get(given["country"], given["country"])
    given["language"] = _LANGUAGES.get(given["language"], given["language"])
    for name in _OPT_INS:
        given[name] = _STATED.get(given[name])
    given["custom"] = _pruned(given["custom"])
    user["attributes"] = _pruned(given)
    return user


def _pruned(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != ""}


@cache
def phone(text: str) -> str | None:
    """Return a number as `phonenumbers` writes it in E.164; None if it is not valid."""
    if not text:
        return None
    try:
        number = phonenumbers.parse(text, REGION)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

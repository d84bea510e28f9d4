"""The `http` tables of destinations and triggers: how a request to any endpoint looks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from worker.contract.settings.addresses import network
from worker.contract.settings.fields import Text, Whole, wrong
from worker.contract.settings.secrets import is_reference
from worker.contract.settings.urls import host_problem

MOST_RESULTS: Final = 10_000
MOST_BYTES: Final = 5_000_000
_STATUS: Final = re.compile(r"[1-5](?:[0-9]{2}|xx)")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_OUR_HEADERS: Final = frozenset(
    {"host", "content-length", "content-encoding", "transfer-encoding", "connection"}
)
_SCALARS: Final = (str, int, float, bool)


class HttpTable(BaseModel):
    """Frozen, without unknown keys, and silent about its values in errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


def _as_status(value: Any) -> str:
    text = str(value) if type(value) in (str, int) else ""
    if not _STATUS.fullmatch(text):
        raise wrong("is not a status", 'write it as 404, or "2xx" for all that begin with 2')
    return text


def _checked_header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise wrong(f"{name!r} is not the name of a header")
    if name.lower() in _OUR_HEADERS:
        raise wrong(f"{name} is set by segrelay itself")
    return name


def _checked_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        _checked_header_name(name)
        if is_reference(value):
            raise wrong(f"{name} names a secret", "put it into an authorization's headers")
        if not _HEADER_VALUE.fullmatch(value):
            raise wrong(f"{name} holds characters that a header can't carry")
    return headers


def _checked_network(text: str) -> str:
    try:
        network(text)
    except ValueError as error:
        raise wrong(f"{text!r} is not a network", f'write it as "10.1.0.0/16" ({error})') from None
    return text


def _checked_host(text: str) -> str:
    problem = host_problem(text)
    if problem:
        raise wrong(f"{text!r} {problem}", 'write it as "api.example.com" or "*.example.com:8443"')
    return text


def _checked_scalar(value: Any) -> Any:
    if type(value) not in _SCALARS:
        raise wrong("is neither a text, a number nor true or false")
    return value


Status = Annotated[str, BeforeValidator(_as_status)]
HeaderName = Annotated[str, AfterValidator(lambda name: name and _checked_header_name(name))]
Headers = Annotated[dict[str, str], AfterValidator(_checked_headers)]
Host = Annotated[Text, AfterValidator(_checked_host)]
NetworkText = Annotated[Text, AfterValidator(_checked_network)]
Scalar = Annotated[Any, AfterValidator(_checked_scalar)]


class Failures(HttpTable):
    """How a successful answer names the results that it refuses.

    Either the answer lists what failed, each entry with the position of its result (`index`), or
    an object has these positions as its keys; or it lists all results in their order, and a `field`
    of each says what became of it.

    Attributes:
        at: Where the list or object is: keys of the answer, joined by dots; "" = the answer itself.
        index: The key of an entry that holds the position, counted from 0.
        field: The key of a result that says what became of it; "" = the list names what failed.
        succeeded: Values of `field` that mean yes; without any, a result failed that has the field.
        message: The key that holds why; "" = the entry is a text, or there is no reason.
    """

    at: str = ""
    index: str = "index"
    field: str = ""
    succeeded: tuple[Scalar, ...] = ()
    message: str = "message"


class HttpRequests(HttpTable):
    """How requests are made and their answers read; a trigger may change it for its own.

    Attributes:
        results: How many results of the template one request carries at most. 1: each alone, as it
            is. More: always in a JSON array.
        success: Statuses that mean yes.
        retry: Statuses that mean "not now", beside 408, 425, 429 and 5xx.
        idempotency_header: Carries the same text at each attempt of a delivery; "" = is not sent.
    """

    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = "POST"
    headers: Headers = {}
    results: Whole = Field(default=1, ge=1, le=MOST_RESULTS)
    max_bytes: Whole = Field(default=MOST_BYTES, ge=1_000, le=50_000_000)
    success: tuple[Status, ...] = Field(default=("2xx",), min_length=1)
    retry: tuple[Status, ...] = ()
    idempotency_header: HeaderName = "Idempotency-Key"
    failures: Failures | None = None

    def changed_by(self, other: HttpRequests) -> HttpRequests:
        """Return these with what another table sets."""
        merged: Mapping[str, Any] = {
            name: getattr(other if name in other.model_fields_set else self, name)
            for name in HttpRequests.model_fields
        }
        return HttpRequests.model_construct(**merged)


class HttpDestination(HttpRequests):
    """The `http` table of a destination.

    Attributes:
        hosts: Further hosts that the URLs of triggers and templates may lead to. The authorization
            goes there too.
        networks: Addresses that may be connected to though they are not public.
    """

    hosts: tuple[Host, ...] = ()
    networks: tuple[NetworkText, ...] = ()

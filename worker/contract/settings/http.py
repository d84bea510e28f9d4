"""Requests to any endpoint: their `http` tables, their URLs, and the credentials that they carry.

The URL of a trigger is a text, a secret, or a template.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
)

from segrelay.worker.contract.settings.urls import (
    network,
    refuse_reason,
    without_query,
)
from segrelay.worker.contract.settings.values import (
    LITERAL,
    REFERENCE,
    Frozen,
    KeyPath,
    NamedSection,
    Secret,
    SecretValue,
    Surroundings,
    TemplateName,
    Text,
    Whole,
    is_reference,
    location_of,
    matching,
    secret_of,
    wrong,
)

_STATUS: Final = re.compile(r"[1-5](?:[0-9]{2}|xx)")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_OUR_HEADERS: Final = frozenset(
    {"host", "content-length", "content-encoding", "transfer-encoding", "connection"}
)
_PATH: Final = re.compile(r"(?:(?:[^.\[\]]+|\[[0-9]+\])(?:\.[^.\[\]]+|\[[0-9]+\])*)?")
_SCALARS: Final = (str, int, float, bool)


def _not_ours(header: str) -> str:
    if header.lower() in _OUR_HEADERS:
        raise wrong("is set by segrelay itself")
    return header


class TemplateChoice(Frozen):
    """A Jsonnet file that makes a value for each event."""

    template: TemplateName
    """The file, relative to the templates folder."""


def _text_or_template(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str | TemplateChoice):
        return value
    if isinstance(value, dict):
        return TemplateChoice.model_validate(value, context=info.context)
    raise wrong("is neither a text nor a template", 'write it as { template = "name.jsonnet" }')


def _checked_network(text: str) -> str:
    try:
        network(text)
    except ValueError as error:
        raise wrong(f"{text!r} is not a network", f'write it as "10.1.0.0/16" ({error})') from None
    return text


def _checked_scalar(value: Any) -> Any:
    if type(value) not in _SCALARS:
        raise wrong("is neither a text, a number nor true or false")
    return value


def _sendable(value: Any) -> Any:
    text = (value.value or "") if isinstance(value, Secret) else value
    if isinstance(text, str) and not _HEADER_VALUE.fullmatch(text):
        what = value.origin if isinstance(value, Secret) else "it"
        raise wrong(f"{what} holds characters that a header can't carry", kind=REFERENCE)
    return value


Status = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    matching(_STATUS, "is not a status", 'write it as 404, or "2xx" for all that begin with 2'),
]
Word = Annotated[
    Text,
    matching(
        re.compile(r"[^\d\"'<>]+"),
        "numbers and quoted texts are hidden in an answer",
        "name words of it",
    ),
]
HeaderName = Annotated[
    str, matching(_HEADER_NAME, "is not the name of a header"), AfterValidator(_not_ours)
]
TextOrTemplate = Annotated[Any, BeforeValidator(_text_or_template)]
_Key = Annotated[HeaderName, Field(min_length=1)]
Headers = dict[_Key, Annotated[TextOrTemplate, AfterValidator(_sendable)]]
SecretHeaders = Mapping[_Key, Annotated[SecretValue, AfterValidator(_sendable)]]
JsonPath = Annotated[str, matching(_PATH, "is not a path", 'write it as "errors[0].detail"')]
NetworkText = Annotated[Text, AfterValidator(_checked_network)]
Scalar = Annotated[Any, AfterValidator(_checked_scalar)]


def several(value: Any) -> Any:
    """Return a list also where a single text stands in its place."""
    return (value,) if isinstance(value, str) else value


class Failures(Frozen):
    """The form in which a successful answer names the results that it refuses.

    Either the answer lists what failed: each entry with the position of its result (`index`), or
    with a value of it (`of`); or an object has positions or values as its keys. Or it lists all
    results, and a `field` of each says what became of it.
    """

    at: str = ""
    """Where the list or object is: keys of the answer, joined by dots; empty: the answer itself."""
    index: str = "index"
    """The key of an entry that holds the position, counted from 0."""
    of: Annotated[tuple[Text, ...], BeforeValidator(several)] = ()
    """The key of a result that holds a value by which the answer names it, such as `email`; or a
    list of such keys. Without it, entries are found by position."""
    value: str = ""
    """The key of an entry that holds this value, or a list of them, such as `context.ids`; empty:
    the entry is the value, as in a list of addresses, or the value is the entry's key."""
    field: str = ""
    """The key of a result that says what became of it; empty: the list names what failed."""
    succeeded: tuple[Scalar, ...] = ()
    """Values of `field` that mean yes; if there are none, a result that has the field failed."""
    message: str = "message"
    """The key that holds the reason; empty: the entry is a text, or there is no reason."""
    taken: str = ""
    """Where the answer holds the number, or the list, of the results that were taken. If these are
    too few, and the answer does not say which are missing, the array is halved."""


class HttpRequests(Frozen):
    """The form of requests and of their answers; a trigger may change it for its own."""

    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = "POST"
    """The method of the requests."""
    headers: Headers = {}  # noqa: RUF012 - pydantic copies it
    """Headers that go with every request, each a text or `{ template = "name.jsonnet" }`. Secrets
    belong in an authorization."""
    encoding: Literal["json", "ndjson", "form", "text"] = "json"
    """The way in which the results of the template are written: as JSON, as lines of JSON, as the
    fields of a form, or, if it is a text, as it is."""
    results: Whole = Field(default=1, ge=1, le=10_000)
    """The number of results that share a request, as a JSON array; 1: each goes alone."""
    envelope: TextOrTemplate = ""
    """The key of the object in which the array of results stands, or `{ template = … }`, which gets
    the array as `event.get("results")` and yields the whole body; empty: the array itself is sent,
    or the one result."""
    max_bytes: Whole = Field(default=5_000_000, ge=1_000, le=50_000_000)
    """The largest size of a request, in bytes."""
    success: tuple[Status, ...] = Field(default=("2xx",), min_length=1)
    """Statuses that mean yes."""
    retry: tuple[Status, ...] = ()
    """Statuses that mean "not now", beside 408, 425, 429 and 5xx."""
    refuse: tuple[Status, ...] = ()
    """Statuses that refuse what was sent, beside most 4xx: `500` for an endpoint of SOAP, or `403`
    where it is about a person and not about the credentials."""
    idempotency_header: HeaderName = "Idempotency-Key"
    """The header that carries the same text at each attempt of a delivery; empty: none does."""
    failures: Failures | None = None
    """The way in which a successful answer names the results that it refuses. Without it, the array
    is halved if an answer lists errors."""
    reason: JsonPath = ""
    """The place at which an answer says why it refuses, e.g. `errors[0].detail`; empty: one of the
    usual places."""
    suppressed: tuple[Word, ...] = ()
    """Texts in the reason of a refusal by which the endpoint says that it does not want the person,
    such as `unsubscribed`: the delivery is skipped as `suppressed`, and leaves no dead letter."""
    words: tuple[Text, ...] = ()
    """The endpoint's own words that are kept of its answers, such as `plan`, beside words that are
    common where something is wrong; all others are hidden, because they may name a person."""

    @property
    def fixed_headers(self) -> dict[str, str]:
        """Return the headers that no template makes."""
        return {name: text for name, text in self.headers.items() if isinstance(text, str)}

    @property
    def header_templates(self) -> dict[str, str]:
        """Return the templates that make headers, by the header's name."""
        return {
            name: value.template
            for name, value in self.headers.items()
            if isinstance(value, TemplateChoice)
        }

    def changed_by(self, other: HttpRequests) -> HttpRequests:
        """Return this table with the values that another table sets."""
        merged: Mapping[str, Any] = {
            name: getattr(other if name in other.model_fields_set else self, name)
            for name in HttpRequests.model_fields
        }
        return HttpRequests.model_construct(**merged)


class HttpDestination(HttpRequests):
    """The `http` table of a destination."""

    networks: tuple[NetworkText, ...] = ()
    """Private addresses that may be connected to, such as `10.1.0.0/16`."""


_HINT: Final = 'write a text, "env:NAME", or { template = "url.jsonnet" }'


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """The address of a trigger's requests.

    Args:
        text: The address as it stands in the configuration; "" where it is a secret or a template.
        secret: The secret that holds the address; None = it is none.
        template: The template that makes the address for each event; "" = none does.
    """

    text: str = ""
    secret: Secret | None = None
    template: str = ""

    @property
    def value(self) -> str:
        """Return the URL as a text; "" for a template, and for a secret that is not set."""
        return (self.secret.value or "") if self.secret else self.text

    @property
    def shown(self) -> str:
        """Return the URL as it may be printed: of a secret, only its origin, such as `env:NAME`."""
        return self.secret.origin if self.secret else self.text

    def __bool__(self) -> bool:
        return bool(self.text or self.secret or self.template)


def _read(value: Any, info: ValidationInfo) -> TargetUrl:
    if isinstance(value, TargetUrl):
        return value
    if isinstance(value, dict):
        return TargetUrl(
            template=TemplateChoice.model_validate(value, context=info.context).template
        )
    if not isinstance(value, str):
        raise wrong("is not a URL", _HINT)
    return TargetUrl(secret=secret_of(value, info)) if is_reference(value) else TargetUrl(value)


def _written(url: TargetUrl) -> Any:
    return {"template": url.template} if url.template else url.shown


TriggerUrl = Annotated[
    TargetUrl, PlainValidator(_read), PlainSerializer(_written, when_used="json")
]


PARTNER_NAME: Final = "X-PARTNER-NAME"
REQUEST_TOKEN: Final = "X-REQUEST-TOKEN"  # noqa: S105 - the header's name
TOKEN: Final = "{token}"  # noqa: S105 - it stands for one
_NO_CREDENTIALS: Final = "none"
_FINGERPRINT_DIGITS: Final = 8


def _checked_url(url: str) -> str:
    if url and (reason := refuse_reason(url, "http")):
        raise wrong(reason)
    return url


def _readable(path: str, info: ValidationInfo) -> str:
    """Return the whole path of a file, and refuse one that can't be read."""
    if path.startswith("env:"):
        raise wrong("names a variable, but has to be the path of a file", kind=REFERENCE)
    if not path or not isinstance(info.context, Surroundings):
        return path
    file = info.context.folder / Path(path.removeprefix("file:")).expanduser()
    try:
        file.read_bytes()
    except OSError as error:
        raise wrong(f"{file} can't be read: {error.strerror}", kind=REFERENCE) from None
    return str(file)


ReadableFile = Annotated[str, AfterValidator(_readable)]


class Authorization(NamedSection):
    """The credentials that a destination asks for."""

    label: str = ""
    """A name for people, shown where the credentials are refused."""
    type: Literal["headers", "basic", "oauth2", "aws"] = "headers"
    """`basic`: `user` and `password`; `oauth2`: a token that segrelay gets from `token_url`; `aws`:
    each request is signed with `access_key` and `secret_key` (Signature Version 4)."""
    headers: SecretHeaders = Field(default_factory=dict)
    """Headers that go with every request. `{token}` stands for the token; without any header,
    `oauth2` sends `Authorization: Bearer {token}`."""
    parameters: Mapping[str, SecretValue] = {}
    """URL parameters that go with every request; they are never logged. `{token}` stands for the
    token."""
    user: SecretValue | None = None
    """`basic`: the user's name."""
    password: SecretValue | None = None
    """`basic`: the password, if there is one."""
    token_url: Annotated[str, AfterValidator(_checked_url), PlainSerializer(without_query)] = ""
    """`oauth2`: the URL at which a token is requested."""
    client_id: SecretValue | None = None
    """`oauth2`: the id of the client that requests a token."""
    client_secret: SecretValue | None = None
    """`oauth2`: the secret of that client."""
    scope: str = ""
    """`oauth2`: the scope to request for the token."""
    audience: str = ""
    """`oauth2`: the audience to request for the token."""
    extra: Mapping[str, SecretValue] = {}
    """`oauth2`: further parameters of the request for a token."""
    credentials: Literal["body", "basic"] = "body"
    """`oauth2`: the part of the request for a token that carries `client_id` and `client_secret`:
    `body`, or the header `Authorization` (`basic`)."""
    request: Literal["form", "json"] = "form"
    """`oauth2`: the encoding of the request for a token."""
    access_key: SecretValue | None = None
    """`aws`: the id of the access key."""
    secret_key: SecretValue | None = None
    """`aws`: the secret of the access key."""
    region: str = ""
    """`aws`: the region, such as `eu-central-1`."""
    service: str = ""
    """`aws`: the name by which the service signs, such as `execute-api`."""
    authority: ReadableFile = ""
    """The certificate of the authority that signed the endpoint's certificate, if it is private: a
    PEM file, relative to the configuration."""

    @property
    def is_set(self) -> bool:
        """Say whether all secrets of the authorization are set."""
        return all(secret.is_set for _, secret in secrets_of(self))

    def reveal(self) -> None:
        """Check that all secrets of the authorization are set.

        Raises:
            ConfigurationInvalid: One is not.
        """
        for _, secret in secrets_of(self):
            secret.reveal()

    @property
    def uses_token(self) -> bool:
        """Say whether requests carry a token that has to be got first."""
        return self.type == "oauth2"

    @property
    def signs(self) -> bool:
        """Say whether each request is signed with the credentials."""
        return self.type == "aws"

    def revealed_headers(self) -> dict[str, str]:
        """Return the headers with the values of their secrets; `{token}` is not replaced yet.

        Raises:
            ConfigurationInvalid: A secret is not set.
        """
        headers = {name: secret.reveal() for name, secret in self.headers.items()}
        if self.type == "basic" and self.user:
            password = self.password.reveal() if self.password else ""
            return headers | {"Authorization": basic(self.user.reveal(), password)}
        carriers = (*self.headers.values(), *self.parameters.values())
        if self.uses_token and not any(TOKEN in (one.value or "") for one in carriers):
            return headers | {"Authorization": f"Bearer {TOKEN}"}
        return headers

    def revealed_parameters(self) -> dict[str, str]:
        """Return the URL parameters with the values of their secrets; `{token}` is not replaced."""
        return {name: secret.reveal() for name, secret in self.parameters.items()}


def leaves(table: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value in a table that holds no others, with its place there."""
    match table:
        case TargetUrl():
            yield path, table.secret or table.text
        case BaseModel():
            for name, field in type(table).model_fields.items():
                yield from leaves(getattr(table, name), (*path, field.alias or name))
        case Mapping():
            for name, value in table.items():
                yield from leaves(value, (*path, name))
        case tuple() | list():
            for value in table:
                yield from leaves(value, path)
        case _:
            yield path, table


def secrets_of(table: Any) -> Iterator[tuple[KeyPath, Secret]]:
    """Yield each secret in a table with its place there, except literal texts with `{token}`."""
    for path, value in leaves(table):
        is_secret = isinstance(value, Secret)
        if is_secret and (value.origin != LITERAL or TOKEN not in (value.value or "")):
            yield path, value


def fingerprint_of(authorization: Authorization | None) -> str:
    """Return a fingerprint of the credentials; they can't be read from it."""
    found = [(location_of(path), one) for path, one in secrets_of(authorization)]
    values = sorted((location, one.reveal()) for location, one in found if one.is_set)
    if not values:
        return _NO_CREDENTIALS
    return hashlib.sha256(orjson.dumps(values)).hexdigest()[:_FINGERPRINT_DIGITS]


def basic(user: str, password: str) -> str:
    """Return the value of the header `Authorization` for a name and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

"""The authorizations of the configuration: credentials for destinations, and their problems."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, PlainSerializer, ValidationInfo

from segrelay.worker.contract.settings.http import HEADER_NAME, HEADER_VALUE, TargetUrl
from segrelay.worker.contract.settings.problems import Problem, location_of
from segrelay.worker.contract.settings.sections import Section
from segrelay.worker.contract.settings.urls import refuse_reason, without_query
from segrelay.worker.contract.settings.values import (
    LITERAL,
    Secret,
    SecretValue,
    Surroundings,
    wrong,
)

_NO_CREDENTIALS: Final = "none"
_FINGERPRINT_DIGITS: Final = 8
PARTNER_NAME: Final = "X-PARTNER-NAME"
REQUEST_TOKEN: Final = "X-REQUEST-TOKEN"  # noqa: S105 - the header's name
TOKEN: Final = "{token}"  # noqa: S105 - it stands for one
_BEARER: Final = f"Bearer {TOKEN}"
_OUR_HEADERS: Final = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "transfer-encoding"}
)
_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "oauth2": (
        "token_url", "client_id", "client_secret", "scope", "audience", "extra", "credentials",
        "request",
    ),
    "basic": ("user", "password"),
    "aws": ("access_key", "secret_key", "session_token", "region", "service"),
}  # fmt: skip
"""The keys that are for one type only."""
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "headers": (),
    "basic": ("user",),
    "oauth2": ("token_url", "client_id", "client_secret"),
    "aws": ("access_key", "secret_key", "region", "service"),
}


def _token_url(value: str) -> str:
    reason = refuse_reason(value, "http") if value else None
    if reason:
        raise wrong(reason)
    return value


def _readable(value: Any, info: ValidationInfo) -> Any:
    """Return the whole path of a file, and refuse one that can't be read."""
    if not isinstance(value, str) or not isinstance(info.context, Surroundings) or not value:
        return value
    if value.startswith("env:"):
        raise wrong("names a variable, but has to be the path of a file")
    path = info.context.folder / Path(value.removeprefix("file:")).expanduser()
    try:
        path.read_bytes()
    except OSError as error:
        raise wrong(f"{path} can't be read: {error.strerror}") from None
    return str(path)


ReadableFile = Annotated[str, BeforeValidator(_readable)]


class Authorization(Section):
    """The credentials that a destination asks for."""

    name: str
    label: str = ""
    """A name for people, shown where the credentials are refused."""
    type: Literal["headers", "basic", "oauth2", "aws"] = "headers"
    """`basic`: `user` and `password`; `oauth2`: a token that segrelay gets from `token_url`; `aws`:
    each request is signed with `access_key` and `secret_key` (Signature Version 4)."""
    headers: Mapping[str, SecretValue] = {}
    """Headers that go with every request. `{token}` stands for the token; without any header,
    `oauth2` sends `Authorization: Bearer {token}`."""
    parameters: Mapping[str, SecretValue] = {}
    """URL parameters that go with every request; they are never logged. `{token}` stands for the
    token."""
    user: SecretValue | None = None
    """`basic`: the user's name."""
    password: SecretValue | None = None
    """`basic`: the password, if there is one."""
    token_url: Annotated[str, AfterValidator(_token_url), PlainSerializer(without_query)] = ""
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
    session_token: SecretValue | None = None
    """`aws`: the token of a session, for keys that last for a while only."""
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
        if self.uses_token and not any(TOKEN in text for text in self._templates()):
            return headers | {"Authorization": _BEARER}
        return headers

    def revealed_parameters(self) -> dict[str, str]:
        """Return the URL parameters with the values of their secrets; `{token}` is not replaced."""
        return {name: secret.reveal() for name, secret in self.parameters.items()}

    def _templates(self) -> Iterator[str]:
        for secret in (*self.headers.values(), *self.parameters.values()):
            yield secret.value or ""


def secrets_of(table: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Secret]]:
    """Yield every secret in a table with its place there, except values that hold `{token}`."""
    match table:
        case Secret() if table.origin != LITERAL or TOKEN not in (table.value or ""):
            yield location_of(path), table
        case TargetUrl():
            yield from secrets_of(table.secret, path)
        case BaseModel():
            for name, field in type(table).model_fields.items():
                yield from secrets_of(getattr(table, name), (*path, field.alias or name))
        case Mapping():
            for name, value in table.items():
                yield from secrets_of(value, (*path, name))
        case tuple():
            for value in table:
                yield from secrets_of(value, path)


def fingerprint_of(authorization: Authorization | None) -> str:
    """Return a fingerprint of the credentials; they can't be read from it."""
    secrets = sorted(secrets_of(authorization))
    values = [(location, secret.reveal()) for location, secret in secrets if secret.is_set]
    if not values:
        return _NO_CREDENTIALS
    return hashlib.sha256(orjson.dumps(values)).hexdigest()[:_FINGERPRINT_DIGITS]


def basic(user: str, password: str) -> str:
    """Return the value of the header `Authorization` for a name and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def problems_of_authorization(authorization: Authorization) -> Iterator[Problem]:
    """Yield the problems that make an authorization unusable."""
    path = ("authorizations", authorization.name)
    for header, secret in authorization.headers.items():
        yield from _of_header(location_of((*path, "headers", header)), header, secret)
    kind = authorization.type
    for name in _NEEDED[kind]:
        if not getattr(authorization, name):
            yield Problem(location_of((*path, name)), f'is needed for type = "{kind}"')
    for other, names in _OWN.items():
        for name in names if other != kind else ():
            if name in authorization.model_fields_set:
                yield Problem(location_of((*path, name)), f'is for type = "{other}" only')
    if kind == "aws" and authorization.parameters:
        yield Problem(location_of((*path, "parameters")), 'can\'t be signed with type = "aws"')
    if kind == "aws" and find_spec("botocore") is None:
        yield Problem(location_of((*path, "type")), '"aws" needs an extra that is not installed',
                      "pip install 'segrelay[s3]'")  # fmt: skip


def _of_header(location: str, header: str, secret: Secret) -> Iterator[Problem]:
    value = secret.value or ""
    if not HEADER_NAME.fullmatch(header):
        yield Problem(location, "is not the name of a header")
    if header.lower() in _OUR_HEADERS:
        yield Problem(location, "is set by segrelay itself")
    if not HEADER_VALUE.fullmatch(value):
        yield Problem(location, f"{secret.origin} holds characters that a header can't carry")
    if header.upper() == PARTNER_NAME and value != value.lower():
        yield Problem(location, f"{secret.origin} holds an uppercase letter",
                      "Insider wants the partner name in lower case")  # fmt: skip

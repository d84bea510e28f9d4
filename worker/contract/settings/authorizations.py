"""The authorizations of the configuration: credentials for destinations, and their problems."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo

from segrelay.worker.contract.settings.http import Hmac, key_of
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
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_OUR_HEADERS: Final = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "transfer-encoding"}
)
_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "oauth2": (
        "token_url", "grant", "client_id", "client_secret", "refresh_token", "private_key",
        "key_id", "subject", "scope", "audience", "extra", "credentials", "request",
    ),
    "basic": ("user", "password"),
    "aws": ("access_key", "secret_key", "session_token", "region", "service"),
}  # fmt: skip
"""The keys that are for one type only."""
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "headers": (),
    "basic": ("user",),
    "oauth2": ("token_url", "client_id"),
    "aws": ("access_key", "secret_key", "region", "service"),
}
_OF_GRANTS: Final[Mapping[str, str]] = {
    "client_credentials": "client_secret",
    "refresh_token": "refresh_token",
    "jwt": "private_key",
}
SECRETS: Final = (
    "user", "password", "client_id", "client_secret", "refresh_token", "private_key",
    "access_key", "secret_key", "session_token",
)  # fmt: skip
PLACEHOLDER: Final = re.compile(r"\{[^{}]*\}")


class Certificate(NamedTuple):
    """The files for the TLS connections of an authorization; an empty name means none.

    Attributes:
        certificate: The proof of who we are.
        key: Its private key.
        authority: The signer of the other side's certificate.
    """

    certificate: str = ""
    key: str = ""
    authority: str = ""


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


class ComputedParameter(Hmac):
    """A URL parameter that signs others."""

    of: str = Field(min_length=1)
    """The signed text; `{access_token}` stands for the parameter `access_token`, and so on."""

    def text_for(self, parameters: Mapping[str, str]) -> str:
        """Return the value of the parameter.

        Args:
            parameters: The parameters that `of` may name.

        Raises:
            ConfigurationInvalid: The secret is not set.
        """
        signed = PLACEHOLDER.sub(lambda found: parameters.get(found[0][1:-1], ""), self.of)
        return self.text(signed.encode())


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
    computed: Mapping[str, ComputedParameter] = {}
    """URL parameters that are computed from others, such as Meta's `appsecret_proof`."""
    user: SecretValue | None = None
    """`basic`: the user's name."""
    password: SecretValue | None = None
    """`basic`: the password, if there is one."""
    token_url: Annotated[str, AfterValidator(_token_url), PlainSerializer(without_query)] = ""
    """`oauth2`: the URL at which a token is requested."""
    grant: Literal["client_credentials", "refresh_token", "jwt"] = "client_credentials"
    """`oauth2`: what the request for a token shows: `client_secret`, a `refresh_token` that was got
    before, or a JWT that `private_key` signs, as for service accounts of Google."""
    client_id: SecretValue | None = None
    """`oauth2`: the id of the client that requests a token; for `jwt`, the issuer of the JWT."""
    client_secret: SecretValue | None = None
    """`oauth2`: the secret of that client."""
    refresh_token: SecretValue | None = None
    """`oauth2`: the token that is exchanged for tokens. If an answer brings another one, that one
    is used from then on, until the configuration has a new one."""
    private_key: SecretValue | None = None
    """`oauth2`: the RSA key that signs the JWT (RS256), in PEM, such as `file:service.pem`."""
    key_id: str = ""
    """`oauth2`: the id of the private key, if the endpoint asks for it."""
    subject: str = ""
    """`oauth2`: the user for whom the JWT asks."""
    scope: str = ""
    """`oauth2`: the scope to request for the token."""
    audience: str = ""
    """`oauth2`: the audience to request for the token; of a JWT, if it is not `token_url`."""
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
    certificate: ReadableFile = ""
    """A client certificate, as a PEM file, relative to the configuration."""
    key: ReadableFile = ""
    """The private key of the certificate, unless the same file holds it."""
    authority: ReadableFile = ""
    """The certificate of the authority that signed the endpoint's certificate, if it is private."""

    def secrets(self) -> Iterator[tuple[str, Secret]]:
        """Yield every secret with its place in the table, except values that hold `{token}`."""
        for table in ("headers", "parameters", "extra"):
            for key, secret in getattr(self, table).items():
                if secret.origin != LITERAL or TOKEN not in (secret.value or ""):
                    yield location_of((table, key)), secret
        for name, computed in self.computed.items():
            yield location_of(("computed", name, "secret")), computed.secret
        for name in SECRETS:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    @property
    def is_set(self) -> bool:
        """Say whether all secrets of the authorization are set."""
        return all(secret.is_set for _, secret in self.secrets())

    def reveal(self) -> None:
        """Check that all secrets of the authorization are set.

        Raises:
            ConfigurationInvalid: One is not.
        """
        for _, secret in self.secrets():
            secret.reveal()

    @property
    def uses_token(self) -> bool:
        """Say whether requests carry a token that has to be got first."""
        return self.type == "oauth2"

    @property
    def signs(self) -> bool:
        """Say whether each request is signed with the credentials."""
        return self.type == "aws"

    @property
    def tls(self) -> Certificate | None:
        """Return the files for TLS connections, or None if there are none."""
        files = Certificate(self.certificate, self.key, self.authority)
        return files if any(files) else None

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
        given = {name: secret.reveal() for name, secret in self.parameters.items()}
        return given | {name: each.text_for(given) for name, each in self.computed.items()}

    def _templates(self) -> Iterator[str]:
        for secret in (*self.headers.values(), *self.parameters.values()):
            yield secret.value or ""


def fingerprint_of(authorization: Authorization | None) -> str:
    """Return a fingerprint of the credentials; they can't be read from it."""
    secrets = sorted(authorization.secrets()) if authorization else ()
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
    needed = _NEEDED[kind]
    if kind == "oauth2":
        needed += (_OF_GRANTS[authorization.grant],)
    for name in needed:
        if not getattr(authorization, name):
            is_of_grant = name in _OF_GRANTS.values()
            of = f'grant = "{authorization.grant}"' if is_of_grant else f'type = "{kind}"'
            yield Problem(location_of((*path, name)), f"is needed for {of}")
    for other, names in _OWN.items():
        for name in names if other != kind else ():
            if name in authorization.model_fields_set:
                yield Problem(location_of((*path, name)), f'is for type = "{other}" only')
    if kind == "aws" and (authorization.parameters or authorization.computed):
        yield Problem(location_of((*path, "parameters")), 'can\'t be signed with type = "aws"')
    yield from _of_computed(authorization, path)
    yield from _of_private_key(authorization, path)
    if authorization.key and not authorization.certificate:
        yield Problem(location_of((*path, "key")), "needs a certificate")


def _of_computed(authorization: Authorization, path: tuple[str, ...]) -> Iterator[Problem]:
    known = [f"{{{name}}}" for name in authorization.parameters]
    for name, each in authorization.computed.items():
        here = (*path, "computed", name)
        if name in authorization.parameters:
            yield Problem(location_of(here), "stands in parameters too")
        for unknown in dict.fromkeys(PLACEHOLDER.findall(each.of)):
            if unknown not in known:
                hint = f"there are {', '.join(known)}" if known else "there are no parameters"
                yield Problem(location_of((*here, "of")), f"{unknown} stands for nothing", hint)
        for parameter, secret in authorization.parameters.items():
            if f"{{{parameter}}}" in each.of and TOKEN in (secret.value or ""):
                yield Problem(location_of((*here, "of")), "can't sign a token that changes")
        yield from problem_of_secret(each, location_of((*here, "secret")))


def problem_of_secret(hmac: Hmac, location: str) -> Iterator[Problem]:
    """Yield a problem if the secret of a signature is not written in its encoding."""
    if hmac.secret.value and key_of(hmac.secret.value, hmac.secret_encoding) is None:
        yield Problem(location, f"{hmac.secret.origin} is no {hmac.secret_encoding}")


def _of_private_key(authorization: Authorization, path: tuple[str, ...]) -> Iterator[Problem]:
    secret = authorization.private_key
    if secret is None or not secret.value:
        return
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(secret.value.encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        yield Problem(location_of((*path, "private_key")),
                      f"{secret.origin} is no private RSA key in PEM, without a password",
                      "of Google's JSON file, write the text of private_key into a file of its own"
                      )  # fmt: skip


def _of_header(location: str, header: str, secret: Secret) -> Iterator[Problem]:
    value = secret.value or ""
    if not _HEADER_NAME.fullmatch(header):
        yield Problem(location, "is not the name of a header")
    if header.lower() in _OUR_HEADERS:
        yield Problem(location, "is set by segrelay itself")
    if not _HEADER_VALUE.fullmatch(value):
        yield Problem(location, f"{secret.origin} holds characters that a header can't carry")
    if header.upper() == PARTNER_NAME and value != value.lower():
        yield Problem(location, f"{secret.origin} holds an uppercase letter",
                      "Insider wants the partner name in lower case")  # fmt: skip

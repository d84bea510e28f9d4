"""OAuth2 tokens: the request for one, and the reading of the answer."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl, quote_plus, urlencode

import orjson

from segrelay.worker.contract.settings.authorizations import TOKEN, Authorization, basic
from segrelay.worker.core.compact import parsed
from segrelay.worker.core.messages import normalise_message, without_values
from segrelay.worker.core.verdicts import AccessRefused, Failed, Verdict
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.sending import NoAnswer, OutgoingRequest

DEFAULT_LIFE_SECONDS: Final = 600.0
"""The seconds that a token is taken to be valid if the answer that issued it does not say."""
RENEWED_BEFORE_SECONDS: Final = 60.0
_LIFE_SHARE: Final = 0.25
"""The last part (1/4) of its life in which a token that lives under four minutes is renewed."""
_TOKEN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
"""The form of a token: text that may stand in a header."""
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTED_SECONDS: Final = 300
"""The seconds for which a JWT can be exchanged; it is exchanged at once."""
_FORM: Final = "application/x-www-form-urlencoded"
_OK: Final = range(200, 300)
_OURS: Final = range(400, 500)
_TOO_MANY, _TIMEOUT = 429, 408


class Granted(NamedTuple):
    """A token that was just issued.

    Attributes:
        token: The text that requests carry.
        seconds: The time for which it is good.
        refresh_token: The one to ask with next time; "" = the same as before.
    """

    token: str
    seconds: float
    refresh_token: str = ""

    def __repr__(self) -> str:
        return f"Granted({self.seconds:g} s)"

    @property
    def renewed_after_seconds(self) -> float:
        """Return the seconds after which another token should be asked for."""
        return self.seconds - min(RENEWED_BEFORE_SECONDS, self.seconds * _LIFE_SHARE)


class AccessToken(NamedTuple):
    """A token as all processes share it.

    Attributes:
        text: The text that requests carry.
        number: Tells it from the one before and the one after.
        is_unproven: The one before was refused, and no request with this one was taken yet.
    """

    text: str
    number: int
    is_unproven: bool = False

    def __repr__(self) -> str:
        return f"AccessToken(number {self.number})"


class Tokens(Protocol):
    """The token of one authorization, for all processes."""

    async def token(self) -> AccessToken | Verdict:
        """Return the token that is in force, or why there is none."""
        ...

    async def refused(self, token: AccessToken) -> bool:
        """Forget a token that was refused; return whether another one is worth a try."""
        ...

    async def accepted(self, token: AccessToken) -> None:
        """Remember that a request with a token was taken."""
        ...


def token_request(
    authorization: Authorization, unix_seconds: int, refresh_token: str = ""
) -> OutgoingRequest:
    """Return the request that asks for a token.

    Args:
        authorization: Of the type `oauth2`.
        unix_seconds: Now, for a JWT.
        refresh_token: The one that came last; "" = the configured one.

    Raises:
        ConfigurationInvalid: A secret is not set.
    """
    form, headers = _grant(authorization, unix_seconds, refresh_token), {}
    form |= {name: one.reveal() for name, one in authorization.extra.items()}
    if authorization.grant != "jwt":
        assert authorization.client_id is not None
        given = authorization.client_secret
        who, secret = authorization.client_id.reveal(), given.reveal() if given else ""
        if authorization.credentials == "basic":
            headers["Authorization"] = basic(quote_plus(who), quote_plus(secret))
        else:
            form |= {"client_id": who} | ({"client_secret": secret} if given else {})
    is_json = authorization.request == "json"
    headers["Content-Type"] = "application/json" if is_json else _FORM
    return OutgoingRequest(
        authorization.token_url,
        headers,
        {},
        orjson.dumps(form) if is_json else urlencode(form).encode(),
        "http",
        tls=authorization.tls,
    )


def _grant(authorization: Authorization, unix_seconds: int, refresh_token: str) -> dict[str, str]:
    """Return the part of a request for a token that says by which right it is asked for."""
    if authorization.grant == "jwt":
        return {"grant_type": _JWT_BEARER, "assertion": _assertion(authorization, unix_seconds)}
    asked = {name: getattr(authorization, name) for name in ("scope", "audience")}
    asked = {name: text for name, text in asked.items() if text}
    if authorization.grant == "refresh_token":
        assert authorization.refresh_token is not None
        asked["refresh_token"] = refresh_token or authorization.refresh_token.reveal()
    return {"grant_type": authorization.grant, **asked}


def _assertion(authorization: Authorization, unix_seconds: int) -> str:
    """Return a JWT (RFC 7523) that the private key signs with RS256."""
    # Only those who use such tokens pay for it.
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    assert authorization.client_id is not None
    assert authorization.private_key is not None
    claims = {
        "iss": authorization.client_id.reveal(),
        "sub": authorization.subject,
        "scope": authorization.scope,
        "aud": authorization.audience or authorization.token_url,
        "iat": unix_seconds,
        "exp": unix_seconds + _ASSERTED_SECONDS,
    }
    head = {"alg": "RS256", "typ": "JWT", "kid": authorization.key_id}
    parts = [
        _base64url(orjson.dumps({name: one for name, one in table.items() if one}))
        for table in (head, claims)
    ]
    signed = ".".join(parts)
    key = load_pem_private_key(authorization.private_key.reveal().encode(), None)
    assert isinstance(key, RSAPrivateKey)
    return f"{signed}.{_base64url(key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def _base64url(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def read_grant(
    answer: Answer | NoAnswer, authorization: Authorization, asked: OutgoingRequest | None = None
) -> Granted | Verdict:
    """Return the token that was issued, or the verdict if there is none.

    Args:
        answer: The answer of the endpoint.
        authorization: Of the type `oauth2`.
        asked: The request, whose values no message may quote; None = it holds none but secrets of
            the configuration.
    """
    if isinstance(answer, NoAnswer):
        return Failed(f"{_named(authorization)}: {answer.message}", possibly_applied=False)
    document = parsed(answer.body)
    told = document if isinstance(document, dict) else {}
    token = told.get("access_token")
    if answer.status in _OK and isinstance(token, str) and _TOKEN.fullmatch(token):
        refresh = told.get("refresh_token") if authorization.grant == "refresh_token" else ""
        refresh = refresh if isinstance(refresh, str) else ""
        return Granted(token, _life(told.get("expires_in")), refresh)
    if answer.status in _OK:
        # The credentials were not refused: it may well issue a token to the next who asks.
        lacks = "an access_token that a header can carry" if token else "an access_token"
        message = f"{_named(authorization)} answers {answer.status} without {lacks}"
        return Failed(message, possibly_applied=False)
    message = f"{_named(authorization)} answers {answer.status}{_said(told, authorization, asked)}"
    if answer.status in _OURS and answer.status not in {_TOO_MANY, _TIMEOUT}:
        return AccessRefused(message)
    return Failed(message, possibly_applied=False)


def _named(authorization: Authorization) -> str:
    return f"authorizations.{authorization.name}.token_url"


def _life(told: Any) -> float:
    try:
        seconds = float(told)
    except (TypeError, ValueError):
        return DEFAULT_LIFE_SECONDS
    return seconds if math.isfinite(seconds) and seconds > 0 else DEFAULT_LIFE_SECONDS


def _said(
    told: Mapping[str, Any], authorization: Authorization, asked: OutgoingRequest | None
) -> str:
    """Return what the endpoint says, without a secret that it may quote."""
    parts = [told[key] for key in ("error", "error_description") if isinstance(told.get(key), str)]
    secrets = [secret.value for _, secret in authorization.secrets() if secret.value]
    if asked:
        form = parsed(asked.body) or dict(parse_qsl(asked.body.decode()))
        secrets += [form[name] for name in ("refresh_token", "assertion") if name in form]
    said = without_values(normalise_message(": ".join(parts)), orjson.dumps(secrets))
    return f" ({said})" if said else ""


def with_token(texts: Mapping[str, str], token: str) -> dict[str, str]:
    """Return headers or parameters with the token in the place of `{token}`."""
    return {name: text.replace(TOKEN, token) for name, text in texts.items()}

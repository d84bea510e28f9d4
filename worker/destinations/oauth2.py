"""OAuth2 tokens: the request for one, and the reading of the answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus, urlencode

import orjson

from segrelay.worker.contract.printable import with_known_words
from segrelay.worker.contract.settings.http import (
    TOKEN,
    Authorization,
    basic,
    secrets_of,
)
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.core.verdicts import AccessRefused, Failed, Verdict
from segrelay.worker.destinations.api import Answer, NoAnswer, OutgoingRequest, parsed

DEFAULT_LIFE_SECONDS: Final = 600.0
"""The seconds that a token is taken to be valid if the answer that issued it does not say."""
RENEWED_BEFORE_SECONDS: Final = 60.0
_LIFE_SHARE: Final = 0.25
"""The last part (1/4) of its life in which a token that lives under four minutes is renewed."""
_TOKEN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
"""The form of a token: text that may stand in a header."""
_FORM: Final = "application/x-www-form-urlencoded"
_OK: Final = range(200, 300)
_OURS: Final = range(400, 500)
_TOO_MANY, _TIMEOUT = 429, 408


class Granted(NamedTuple):
    """A token that was just issued.

    Attributes:
        token: The text that requests carry.
        seconds: The time for which it is good.
    """

    token: str
    seconds: float

    def __repr__(self) -> str:
        return f"Granted({self.seconds:g} s)"

    @property
    def renewed_after_seconds(self) -> float:
        """Return the seconds after which another token should be asked for."""
        return self.seconds - min(RENEWED_BEFORE_SECONDS, self.seconds * _LIFE_SHARE)


def token_request(authorization: Authorization) -> OutgoingRequest:
    """Return the request that asks for a token by client credentials.

    Args:
        authorization: Of the type `oauth2`.

    Raises:
        ConfigurationInvalid: A secret is not set.
    """
    assert authorization.client_id is not None
    assert authorization.client_secret is not None
    who, secret = authorization.client_id.reveal(), authorization.client_secret.reveal()
    form, headers = {"grant_type": "client_credentials"}, {}
    form |= {name: text for name in ("scope", "audience") if (text := getattr(authorization, name))}
    form |= {name: value.reveal() for name, value in authorization.extra.items()}
    if authorization.credentials == "basic":
        headers["Authorization"] = basic(quote_plus(who), quote_plus(secret))
    else:
        form |= {"client_id": who, "client_secret": secret}
    is_json = authorization.request == "json"
    headers["Content-Type"] = "application/json" if is_json else _FORM
    return OutgoingRequest(
        authorization.token_url,
        headers,
        {},
        orjson.dumps(form) if is_json else urlencode(form).encode(),
        "http",
        authority=authorization.authority,
    )


def read_grant(answer: Answer | NoAnswer, authorization: Authorization) -> Granted | Verdict:
    """Return the token that was issued, or the verdict if there is none.

    Args:
        answer: The answer of the endpoint.
        authorization: Of the type `oauth2`.
    """
    if isinstance(answer, NoAnswer):
        return Failed(f"{_named(authorization)}: {answer.message}", possibly_applied=False)
    document = parsed(answer.body)
    told = document if isinstance(document, dict) else {}
    token = told.get("access_token")
    if answer.status in _OK and isinstance(token, str) and _TOKEN.fullmatch(token):
        return Granted(token, _life(told.get("expires_in")))
    if answer.status in _OK:
        # The credentials were not refused: it may well issue a token to the next who asks.
        lacks = "an access_token that a header can carry" if token else "an access_token"
        message = f"{_named(authorization)} answers {answer.status} without {lacks}"
        return Failed(message, possibly_applied=False)
    message = f"{_named(authorization)} answers {answer.status}{_said(told, authorization)}"
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


def _said(told: Mapping[str, Any], authorization: Authorization) -> str:
    """Return what the endpoint says, without a secret that it may quote."""
    parts = [told[key] for key in ("error", "error_description") if isinstance(told.get(key), str)]
    secrets = [secret.value for _, secret in secrets_of(authorization) if secret.value]
    said = with_known_words(normalise_message(": ".join(parts)), sent=orjson.dumps(secrets))
    return f" ({said})" if said else ""


def with_token(texts: Mapping[str, str], token: str) -> dict[str, str]:
    """Return headers or parameters with the token in the place of `{token}`."""
    return {name: text.replace(TOKEN, token) for name, text in texts.items()}

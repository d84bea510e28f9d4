"""The OAuth2 server of a rehearsal: issues tokens and knows which are good."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qs

from ops.sandbox.answer import Reply, json_answer

_GRANT: Final = "client_credentials"


class Issuer:
    """Issues tokens to whoever asks with a client's id and secret."""

    def __init__(self) -> None:
        self.issued = 0
        self._ends: dict[str, float] = {}

    def issue(
        self, headers: Mapping[str, str], body: bytes, *, seconds: float, now: float
    ) -> Reply:
        """Answer a request for a token."""
        form = {name: texts[0] for name, texts in parse_qs(body.decode(errors="replace")).items()}
        if form.get("grant_type") != _GRANT:
            return json_answer(400, {"error": "unsupported_grant_type"})
        if not all(_client(headers, form)):
            return json_answer(401, {"error": "invalid_client"})
        token = secrets.token_urlsafe(24)
        self.issued += 1
        self._ends = {text: ends for text, ends in self._ends.items() if ends > now}
        self._ends[token] = now + seconds
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": seconds}
        return json_answer(200, answer)

    def is_carried(self, texts: Iterable[str], now: float) -> bool:
        """Say whether one of these texts holds a token that is good."""
        return any(
            token in text for text in texts for token, ends in self._ends.items() if ends > now
        )


def _client(headers: Mapping[str, str], form: Mapping[str, str]) -> tuple[str, str]:
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme == "Basic":
        try:
            who, _, secret = base64.b64decode(text).decode().partition(":")
        except ValueError:
            return "", ""
        return who, secret
    return form.get("client_id", ""), form.get("client_secret", "")

"""`RedisTokens`: one token for all processes, sealed with the secret that it was got with.

Redis holds no token that can be read: whoever can open it knows `client_secret`, and could as well
ask for a token of their own. Redis' clock and scripts decide who asks for the next one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import AsyncRedis
from segrelay.worker.contract.redis.scripts import run_script_async
from segrelay.worker.contract.settings import Authorization
from segrelay.worker.core.verdicts import AccessRefused, Failed, Verdict
from segrelay.worker.destinations.oauth2 import AccessToken, Granted

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

TURN_SECONDS: Final = 8.0
"""Seconds that a process may take to ask for a token before another one does."""
ASKING_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1
_KEPT_SECONDS: Final = 86_400
_NONE: Final = "0"
_SECOND: Final = 1_000
_INFO: Final = b"segrelay token"

AskToken = Callable[[str], Awaitable[Granted | Verdict]]
"""Asks for a token, with the refresh token that came last; "" = with what is configured."""


class RedisTokens:
    """The token of one authorization in Redis; see `segrelay.worker.destinations.oauth2.Tokens`.

    Args:
        authorization: Of the type `oauth2`; its secrets are set.
        monotonic: Seconds that never go back.
        turn_seconds: The time that a process may take to ask.
    """

    def __init__(
        self,
        client: AsyncRedis,
        authorization: Authorization,
        ask: AskToken,
        *,
        monotonic: Callable[[], float],
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._client = client
        self._name = authorization.name
        self._secret = _secret_of(authorization)
        self._key = keys.token(authorization.name, hashlib.sha256(self._secret).hexdigest()[:12])
        self._ask = ask
        self._monotonic = monotonic
        self._turn_seconds = turn_seconds
        self._known: AccessToken | None = None
        self._good_until = 0.0

    async def token(self) -> AccessToken | Verdict:
        """Return the token in force; if it is time for the next, one process asks for it."""
        if self._known is not None and self._monotonic() < self._good_until:
            return self._known
        ends_at = self._monotonic() + self._turn_seconds
        while True:
            found = await self._taken(_NONE)
            if not isinstance(found, str):
                return found
            if self._monotonic() > ends_at:
                message = f"authorizations.{self._name}: another process waits for the token"
                return Failed(message, possibly_applied=False)
            await asyncio.sleep(_LOOK_SECONDS)

    async def refused(self, token: AccessToken) -> bool:
        """Forget a token that was refused; return whether another one is worth a try."""
        self._known = None
        found = await self._taken(str(token.number))
        return not isinstance(found, AccessRefused)

    async def accepted(self, token: AccessToken) -> None:
        """Remember that a request with a token was accepted; only the first time asks Redis."""
        if not token.is_unproven or token.number != (self._known and self._known.number):
            return
        await self._call("token_prove", str(token.number))
        self._known = token._replace(is_unproven=False)

    async def _taken(self, refused: str) -> AccessToken | Verdict | str:
        """Return the token, else a verdict, or a word if the caller has to ask again."""
        asker, lasting_ms = secrets.token_hex(8), round(self._turn_seconds * _SECOND)
        answer = await self._call("token_take", refused, asker, lasting_ms)
        word, sealed, number, ends_ms, renew_ms, unproven, turn, refresh = answer
        if word == b"refused":
            return AccessRefused(f"authorizations.{self._name}: a new token is refused as well")
        if word == b"wait":
            return "wait"
        if word == b"ask":
            granted = await self._granted(turn, refresh)
            if isinstance(granted, Granted) or not sealed:
                return "kept" if isinstance(granted, Granted) else granted
            renew_ms = min(ends_ms, _SECOND)
        text = self._opened(sealed)
        if not text:
            return await self._taken(number.decode())
        self._known = AccessToken(text, int(number), bool(unproven))
        self._good_until = self._monotonic() + max(0, min(renew_ms, ends_ms)) / _SECOND
        return self._known

    async def _granted(self, turn: bytes, refresh: bytes) -> Granted | Verdict:
        """Ask the endpoint for a token and keep it; give this process' turn back in any case."""
        granted: Granted | Verdict | None = None
        try:
            granted = await self._ask((refresh and self._opened(refresh)) or "")
            return granted
        finally:
            sealed, life, renewed, next_refresh = b"", 0.0, 0.0, b""
            if isinstance(granted, Granted):
                sealed = self._fernet.encrypt(granted.token.encode())
                life, renewed = granted.seconds, granted.renewed_after_seconds
                if granted.refresh_token:
                    next_refresh = self._fernet.encrypt(granted.refresh_token.encode())
            times = (round(seconds * _SECOND) for seconds in (life, renewed, _KEPT_SECONDS))
            await self._call("token_keep", turn, sealed, *times, next_refresh, refresh)

    def _opened(self, sealed: bytes) -> str | None:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - see `_fernet`

        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            return None

    @cached_property
    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet  # noqa: PLC0415 - only who uses tokens pays for it

        # HKDF (RFC 5869) with SHA-256, for one block.
        drawn = hmac.digest(self._name.encode(), self._secret, "sha256")
        return Fernet(base64.urlsafe_b64encode(hmac.digest(drawn, _INFO + b"\x01", "sha256")))

    async def _call(self, name: str, *args: str | bytes | int) -> Any:
        return await run_script_async(self._client, scripts.source(name), (self._key,), args)


def _secret_of(authorization: Authorization) -> bytes:
    """Return the secret that seals a token: all values of the configuration that it depends on."""
    parts = [authorization.token_url, authorization.scope, authorization.audience]
    parts += [authorization.grant, authorization.subject]
    parts += [secret.reveal() for _, secret in sorted(authorization.secrets())]
    return "\0".join(parts).encode()

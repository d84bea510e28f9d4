"""Sends requests over HTTP: to allowed addresses only, within a deadline, with their tokens.

httpx measures its timeouts per read, so that a server which drips holds a request for as long as it
likes; the deadline here is of our own. Whether a request may have taken effect is decided by one
fact: whether its first byte was about to be written. A cancelled request's connection is closed.

A name is resolved once a connection, and the address that was allowed is the one that is connected
to, so that a name which leads elsewhere at its second look gains nothing. After a 401 the token of
the authorization is asked for anew, once.

All that we use of the private parts of httpx and httpcore is in `pooled_transport` and
`drop_remains`: `pyproject.toml` bounds both libraries, and a test names each part.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote_plus, urlencode

import anyio._backends._asyncio  # noqa: F401 - else the first request of each process loads it
import httpcore
import httpx
import orjson

from segrelay.worker.contract.connections import CONNECT_SECONDS, tls_context, why_no_answer
from segrelay.worker.contract.printable import with_known_words
from segrelay.worker.contract.settings.http import TOKEN, Authorization, basic, secrets_of
from segrelay.worker.contract.settings.urls import (
    literal_address,
    refuse_address_reason,
    refuse_reason,
)
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.core.verdicts import AccessRefused, Failed, TokenReplaced, Verdict
from segrelay.worker.destinations.api import (
    Answer,
    NoAnswer,
    OutgoingRequest,
    Permit,
    Sender,
    Silence,
    granted,
    parsed,
)
from segrelay.worker.errors import ConfigurationInvalid


def pooled_transport(
    network: httpcore.AsyncNetworkBackend,
    *,
    connections: int,
    authority: str = "",
    local_address: str | None = None,
) -> httpx.AsyncHTTPTransport:
    """Return a transport whose connections are made by a network backend.

    httpx hands no network backend on to the pool that it makes, so this pool is ours.

    Args:
        network: The network backend that makes the connections.
        connections: The largest number of connections at once, idle ones too.
        authority: The file with the certificates of a private authority; "" = the system's
            authorities.
        local_address: The address to connect from; None = any.
    """
    context = tls_context(authority)
    transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
    transport._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001
        ssl_context=context,
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=_KEEP_ALIVE_SECONDS,
        local_address=local_address,
        network_backend=network,
    )
    return transport


async def drop_remains(client: httpx.AsyncClient, trace: Any) -> None:
    """Remove a request that was cut off, and its connection, from the pool of a client.

    httpcore 1.0.9 keeps a connection whose request was cancelled before it began to connect, right
    after it was connected, or while its answer was closed. Nobody gets that connection any more,
    and it counts: a pool that is full of them sends nothing until the process ends.

    Args:
        client: A client that was made with `pooled_transport`.
        trace: The object that only this request has as its extension `trace`.
    """
    pool: Any = client._transport._pool  # type: ignore[attr-defined] # noqa: SLF001
    for pooled in list(pool._requests):  # noqa: SLF001
        if pooled.request.extensions.get("trace") == trace:
            pool._requests.remove(pooled)  # noqa: SLF001
    used = {id(pooled.connection) for pooled in pool._requests}  # noqa: SLF001
    unused = [each for each in pool.connections if id(each) not in used]
    unused = [each for each in unused if not (each.is_idle() or each.is_closed())]
    for connection in unused:
        pool._connections.remove(connection)  # noqa: SLF001
    ended = pool._assign_requests_to_connections()  # noqa: SLF001
    for connection in (*unused, *ended):
        await connection.aclose()


_UNAUTHORIZED: Final = 401
_SUCCESS: Final = range(200, 300)
_ASK_AGAIN_SECONDS: Final = 1.0
"""The least time between two requests for a token after one that brought none."""


DEFAULT_LIFE_SECONDS: Final = 600.0
"""The seconds that a token is taken to be valid if the answer that issued it does not say."""
RENEWED_BEFORE_SECONDS: Final = 60.0
_LIFE_SHARE: Final = 0.25
"""The last part (1/4) of its life in which a token that lives under four minutes is renewed."""
_TOKEN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
"""The form of a token: text that may stand in a header."""
_FORM: Final = "application/x-www-form-urlencoded"
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
        authorization: An authorization of the type `oauth2`.

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
        authorization: An authorization of the type `oauth2`.
    """
    if isinstance(answer, NoAnswer):
        return Failed(f"{_named(authorization)}: {answer.message}", possibly_applied=False)
    document = parsed(answer.body)
    told = document if isinstance(document, dict) else {}
    token = told.get("access_token")
    if answer.status in _SUCCESS and isinstance(token, str) and _TOKEN.fullmatch(token):
        return Granted(token, _life(told.get("expires_in")))
    if answer.status in _SUCCESS:
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


def _with_token(texts: Mapping[str, str], token: str) -> dict[str, str]:
    """Return headers or parameters with the token in the place of `{token}`."""
    return {name: text.replace(TOKEN, token) for name, text in texts.items()}


AskToken = Callable[[], Awaitable[Granted | Verdict]]
"""Asks the endpoint of an authorization for a token."""


class ProcessToken:
    """The token of one authorization in the memory of this process.

    Args:
        ask: A function that asks the endpoint for a token.
        monotonic: A clock in seconds that never goes back.
    """

    def __init__(self, ask: AskToken, monotonic: Callable[[], float]) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._answer: str | Verdict = ""
        self._ask_at = self._ends_at = 0.0
        self._replaces_refused = False

    async def token(self) -> str | Verdict:
        """Return the token, or why there is none; one request at a time asks for the next."""
        async with self._turn:
            if self._monotonic() < self._ask_at:
                return self._answer
            granted, now = await self._ask(), self._monotonic()
            self._ask_at = now + _ASK_AGAIN_SECONDS
            if isinstance(granted, Granted):
                self._answer = granted.token
                self._ask_at, self._ends_at = (
                    now + granted.renewed_after_seconds,
                    now + granted.seconds,
                )
            elif now >= self._ends_at:
                self._answer = granted
            return self._answer

    def refused(self, token: str) -> bool:
        """Forget a token that was refused; return whether another one is worth a try.

        One that replaced a refused token and was never accepted is the last: a revoked client would
        ask for tokens for ever.
        """
        if token != self._answer:
            return True
        self._answer, self._ask_at, self._ends_at = "", 0.0, 0.0
        is_worth_it, self._replaces_refused = not self._replaces_refused, True
        return is_worth_it

    def accepted(self, token: str) -> None:
        """Remember that a request with a token was taken."""
        if token == self._answer:
            self._replaces_refused = False


@dataclass(frozen=True, slots=True)
class AuthorizedSender:
    """A sender that adds tokens to requests; see `worker.destinations.api.Sender`.

    A 401 never sends a request again by itself: the drain does, through the gate.

    Args:
        sender: The sender of requests that have their token.
        tokens: The tokens, by the names of their authorizations.
    """

    sender: Sender
    tokens: Mapping[str, ProcessToken]

    async def send(
        self, request: OutgoingRequest, deadline_seconds: float, permit: Permit = granted
    ) -> Answer | NoAnswer:
        """Send one request; see `Sender.send`."""
        if not request.authorization:
            return await self.sender.send(request, deadline_seconds, permit)
        tokens = self.tokens[request.authorization]
        token = await tokens.token()
        if not isinstance(token, str):
            return NoAnswer(Silence.TOKEN, possibly_applied=False, means=token)
        complete = replace(
            request,
            headers=_with_token(request.headers, token),
            params=_with_token(request.params, token),
        )
        answer = await self.sender.send(complete, deadline_seconds, permit)
        if not isinstance(answer, Answer):
            return answer
        if answer.status == _UNAUTHORIZED and tokens.refused(token):
            return NoAnswer(Silence.TOKEN, possibly_applied=False, means=TokenReplaced())
        if answer.status in _SUCCESS:
            tokens.accepted(token)
        return answer

    async def close(self) -> None:
        """Close the connections of the sender."""
        await self.sender.close()


_MOST_ADDRESSES: Final = 4
"""The most addresses of a host that are tried; they share the time for connecting."""


Resolve = Callable[[str, int, socket.AddressFamily], Awaitable[Sequence[str]]]
"""A function that returns a host's addresses for a port, in the order in which to try them."""


async def resolved_by_the_system(
    host: str, port: int, family: socket.AddressFamily
) -> Sequence[str]:
    """Ask the system's resolver for the addresses of a host."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


class GuardedNetwork(httpcore.AnyIOBackend):
    """A network backend of httpcore that connects to allowed addresses only.

    A connection whose TLS handshake is cancelled is closed.

    Args:
        networks: The networks that are allowed beside public addresses; None = any address is
            allowed.
        ipv4_only: True if names are resolved to IPv4 addresses alone.
        resolve: The resolver of names.
    """

    def __init__(
        self, networks: Sequence[str] | None, *, ipv4_only: bool, resolve: Resolve
    ) -> None:
        self._resolve = resolve
        self._networks = networks
        self._family = socket.AF_INET if ipv4_only else socket.AF_UNSPEC

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve a host, and connect to the first allowed address that takes the connection.

        Raises:
            ConfigurationInvalid: The host leads only to addresses that may not be connected to.
        """
        addresses = [host]
        if self._networks is not None:
            try:
                found = dict.fromkeys(await self._resolve(host, port, self._family))
            except (OSError, UnicodeError) as error:
                raise httpcore.ConnectError(str(error)) from error
            addresses = _allowed(host, found, self._networks)[:_MOST_ADDRESSES]
        share = timeout / len(addresses) if timeout else timeout
        for address in addresses:
            try:
                stream = await super().connect_tcp(
                    address, port, share, local_address, socket_options
                )
                return cast("httpcore.AsyncNetworkStream", _Stream(stream))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise AssertionError("there is no address")


def _allowed(host: str, addresses: Iterable[str], networks: Sequence[str]) -> list[str]:
    literals = {text: literal_address(text) for text in addresses}
    reasons = {
        text: refuse_address_reason(address, networks) if address else "no IP address"
        for text, address in literals.items()
    }
    if not reasons:
        raise httpcore.ConnectError(f"{host} has no address")
    if allowed := [text for text, reason in reasons.items() if not reason]:
        return allowed
    text, reason = next(iter(reasons.items()))
    raise ConfigurationInvalid(
        f"Not sent: {host} leads to {text}, {reason}. If that is right, the destination allows it"
        " with http.networks."
    )


class _Stream:
    """A connection before TLS, which closes itself if the TLS handshake fails or is cancelled."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def start_tls(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(*arguments, **options)
        except BaseException:
            await self._inner.aclose()
            raise


MOST_ANSWER_BYTES: Final = 5_000_000
"""The bytes of an answer that are read: some endpoints send everybody back whom they were sent."""

_KEEP_ALIVE_SECONDS: Final = 4.0
"""Seconds after which an idle connection is closed; many servers close it after 5 s.

A request on a connection that the server is closing gets no answer, and nobody learns whether it
took effect.
"""

_NO_STREAM: Final = httpx.ByteStream(b"")
_WRITING: Final = "http11.send_request_headers.started"
_HEADERS_OUT: Final = "http11.send_request_headers.complete"
_WRITING_BODY: Final = "http11.send_request_body.started"
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "segrelay",
}


ConnectionRules = tuple[tuple[str, ...] | None, str]
"""The networks that are allowed beside public addresses, and the file of a private authority."""


class HttpSender:
    """Sends requests over HTTP from one event loop; see `worker.destinations.api.Sender`.

    Each rule about addresses, and each private authority, has connections of its own.

    Proxies and credentials that the environment names are not used, and redirects not followed.

    Args:
        connections: The largest number of requests under way at once; more wait, within their
            deadline.
        ipv4_only: True for keys that are locked to addresses, which are IPv4 at Insider.
        resolve: The resolver of names, where addresses have to be looked at.
    """

    def __init__(
        self,
        *,
        connections: int = 16,
        ipv4_only: bool = False,
        resolve: Resolve = resolved_by_the_system,
    ) -> None:
        self._resolve = resolve
        self._connections = connections
        self._ipv4_only = ipv4_only
        self._clients: dict[ConnectionRules, httpx.AsyncClient] = {}
        self._client((None, ""))  # made here, its 30 ms are not those of a first request

    async def send(
        self, request: OutgoingRequest, deadline_seconds: float, permit: Permit = granted
    ) -> Answer | NoAnswer:
        """Send one request and read its answer; see `Sender.send`."""
        refuse(request)
        progress = _Progress(permit)
        client = self._client((request.networks, request.authority))
        outgoing = _build(client, request, progress)
        try:
            try:
                async with asyncio.timeout(deadline_seconds):
                    await progress.read(await client.send(outgoing, stream=True))
            except BaseException:
                await drop_remains(client, progress.watch)
                raise
        except _WithheldError:
            return NoAnswer(Silence.WITHHELD, possibly_applied=False)
        except TimeoutError:
            why = f"nothing complete came within {deadline_seconds:g} s"
            return progress.ended(Silence.DEADLINE, why)
        except httpx.LocalProtocolError as error:
            if not progress.has_headers_out:
                raise _unwritable() from None
            return progress.ended(_silence_of(error), why_no_answer(error))
        except httpx.HTTPError as error:
            return progress.ended(_silence_of(error), why_no_answer(error))
        return progress.answer()

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _client(self, connection: ConnectionRules) -> httpx.AsyncClient:
        """Return the HTTP client whose connections obey these rules."""
        if connection not in self._clients:
            networks, authority = connection
            transport = pooled_transport(
                GuardedNetwork(networks, ipv4_only=self._ipv4_only, resolve=self._resolve),
                connections=self._connections,
                authority=authority,
                local_address="0.0.0.0" if self._ipv4_only else None,  # noqa: S104 - any, of IPv4
            )
            self._clients[connection] = httpx.AsyncClient(
                transport=transport,
                trust_env=False,
                follow_redirects=False,
                headers=_HEADERS,
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            )
        return self._clients[connection]


def _build(
    client: httpx.AsyncClient, request: OutgoingRequest, progress: _Progress
) -> httpx.Request:
    try:
        url = httpx.URL(request.url)
        if request.params:  # merging writes the query anew, and a signature may be over it
            url = url.copy_merge_params(dict(request.params))
        return client.build_request(
            request.method,
            url,
            headers=dict(request.headers),
            content=request.body,
            extensions={"trace": progress.watch},
        )
    except (httpx.InvalidURL, ValueError):
        # Their text quotes the header or the URL.
        raise _unwritable() from None


def refuse(request: OutgoingRequest) -> None:
    """Refuse a request to a URL that may never be sent to, even if the configuration passed.

    Raises:
        ConfigurationInvalid: Nothing may be sent to the URL; with the reason.
    """
    reason = _refuse_reason(request.url, request.api)
    if reason:
        raise ConfigurationInvalid(f"Not sent: {reason}.")


_refuse_reason: Final = lru_cache(maxsize=256)(refuse_reason)


def _unwritable() -> ConfigurationInvalid:
    return ConfigurationInvalid(
        "Not sent: a header or parameter of the authorization, or the URL, holds characters that"
        " HTTP does not allow. Look for line breaks and letters outside ASCII in the secrets."
    )


def _silence_of(error: httpx.HTTPError) -> Silence:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Silence.UNREACHABLE
    return Silence.DEADLINE if isinstance(error, httpx.TimeoutException) else Silence.CUT


class _WithheldError(Exception):
    """The permit to write was not given."""


class _Progress:
    """The progress of a request on the wire."""

    def __init__(self, permit: Permit) -> None:
        self._permit = permit
        self.is_written = False
        self.has_headers_out = False
        self.is_whole = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._body = bytearray()

    async def watch(self, event: str, _details: Mapping[str, Any]) -> None:
        if event in {_WRITING, _WRITING_BODY}:
            if not await self._permit():
                raise _WithheldError
            self.is_written = True
        elif event == _HEADERS_OUT:
            self.has_headers_out = True

    async def read(self, response: httpx.Response) -> None:
        """Read an answer to its end, or until it is too long."""
        self.status, self.headers = response.status_code, response.headers
        try:
            async for chunk in response.aiter_bytes():
                room = MOST_ANSWER_BYTES - len(self._body)
                self._body += chunk[:room]
                if len(chunk) > room:
                    return
            self.is_whole = True
        finally:
            await response.aclose()
            # httpx ties an answer and its stream to each other, and the body of the request would
            # stay in memory with them until the garbage collector comes.
            response.stream = _NO_STREAM

    def answer(self) -> Answer:
        return Answer(
            self.status,
            bytes(self._body),
            retry_after=resolved_retry_after(self.headers, now_at=datetime.now(UTC)),
            truncated=not self.is_whole,
            headers=self.headers,
        )

    def ended(self, silence: Silence, why: str) -> Answer | NoAnswer:
        """Return the answer if a status other than success has come, else a `NoAnswer`."""
        if self.status and self.status not in _SUCCESS:
            return self.answer()
        return NoAnswer(silence, possibly_applied=self.is_written, why=why)


_RESET: Final = "x-ratelimit-reset"
"""The header in which Braze and others tell the end of a limit."""
_UNIX_SECONDS: Final = re.compile(r"[1-9][0-9]{9}")


def resolved_retry_after(headers: Mapping[str, str], *, now_at: datetime) -> str:
    """Return `Retry-After` in seconds; a date is counted from the answer's own `Date`.

    Without it, the end of the rate limit is taken, if the answer tells it in Unix seconds.

    Args:
        headers: The answer's headers, whose names are found in any case of their letters.
        now_at: The time by this machine's clock, for an answer without `Date`.
    """
    text = headers.get("retry-after", "").strip()
    if text.replace(".", "", 1).isdigit():
        return text
    until_at = _date(text)
    reset = headers.get(_RESET, "").strip()
    if not text and _UNIX_SECONDS.fullmatch(reset):
        until_at = datetime.fromtimestamp(int(reset), UTC)
    if until_at is None:
        return ""
    said_at = _date(headers.get("date", "")) or now_at
    return f"{max((until_at - said_at).total_seconds(), 0.0):.0f}"


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

"""The catch-all: checks, keeps and answers requests to destinations other than Insider.

The first part of a path below `/to/` is the name of the destination.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from segrelay.sandbox.exchange import Reply, json_answer
from segrelay.sandbox.settings import (
    ENDPOINTS_PATH,
    TOKEN_PATH,
    AnswerRule,
    SandboxSettings,
)


class Issuer:
    """Issues tokens to whoever asks with a client's id and secret."""

    def __init__(self) -> None:
        self.issued = 0
        self._ends: dict[str, float] = {}

    def issue(
        self, headers: Mapping[str, str], body: bytes, *, seconds: float, now: float
    ) -> Reply:
        """Issue a token, or refuse the client that asks for one."""
        if headers.get("content-type") == "application/json":
            given = _parsed(body, headers)
            form = given if isinstance(given, dict) else {}
        else:
            text = body.decode(errors="replace")
            form = {name: texts[0] for name, texts in parse_qs(text).items()}
        if form.get("grant_type") != "client_credentials":
            return json_answer(400, {"error": "unsupported_grant_type"})
        who, secret = _client(headers, form)
        if not (who and secret):
            return json_answer(401, {"error": "invalid_client"})
        token = secrets.token_urlsafe(24)
        self.issued += 1
        self._ends = {text: ends for text, ends in self._ends.items() if ends > now}
        self._ends[token] = now + seconds
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": seconds}
        return json_answer(200, answer)

    def is_carried(self, texts: Iterable[str], now: float) -> bool:
        """Say whether one of the texts contains a token that has not expired."""
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


PREFIX: Final = ENDPOINTS_PATH + "/"
_KEPT: Final = 1_000
_BODY_BYTES: Final = 64_000
_SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})


@dataclass(frozen=True, slots=True)
class CaughtRequest:
    """A request to the catch-all, as it is kept.

    Attributes:
        endpoint: The destination's name.
        headers: The headers, without the values of those that hold credentials.
        body: The body, parsed where it is JSON or a form.
        problem: The reason why it was refused; "" = it was not.
    """

    endpoint: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    status: int = 200
    problem: str = ""
    at: float = field(default_factory=time.time)


class CatchAll:
    """The stand-in for all destinations of a sandbox run other than Insider."""

    def __init__(self) -> None:
        self.issuer = Issuer()
        self.requests: deque[CaughtRequest] = deque(maxlen=_KEPT)
        self.counts: Counter[tuple[str, int]] = Counter()
        self._used: Counter[int] = Counter()

    def take(
        self, came: CaughtRequest, raw: bytes, headers: Mapping[str, str], settings: SandboxSettings
    ) -> Reply:
        """Check a request by the rules of its endpoint, keep it, and answer it."""
        texts = (*headers.values(), *came.query.values())
        needs_token = came.endpoint in settings.token_endpoints
        if needs_token and not self.issuer.is_carried(texts, came.at):
            problem = "no header or parameter carries a token that is good"
            return self.kept(came, json_answer(401, {"error": problem}), problem)
        for at, rule in enumerate(settings.answers):
            if _fits(rule, came, raw) and (not rule.times or self._used[at] < rule.times):
                self._used[at] += 1
                return self.kept(came, _reply(rule), "")
        return self.kept(came, json_answer(200, {}), "")

    def shown(self, last: int, endpoint: str = "") -> dict[str, Any]:
        """Return counts by endpoint and status, and the last requests, the newest last."""
        kept = [one for one in self.requests if endpoint in ("", one.endpoint)]
        counts: dict[str, dict[str, int]] = {}
        for (name, status), count in sorted(self.counts.items()):
            counts.setdefault(name, {})[str(status)] = count
        return {
            "by_endpoint": counts,
            "tokens": self.issuer.issued,
            "last": [asdict(one) for one in (kept[-last:] if last > 0 else [])],
        }

    def kept(self, came: CaughtRequest, answer: Reply, problem: str) -> Reply:
        """Keep a request with its answer, and return the answer."""
        self.requests.append(
            CaughtRequest(**{**asdict(came), "status": answer.status, "problem": problem})
        )
        self.counts[came.endpoint, answer.status] += 1
        return answer


def caught(
    method: str, path: str, query: Mapping[str, str], *, headers: Mapping[str, str], raw: bytes
) -> CaughtRequest:
    """Return a request below `/to/` in the form in which it is kept, without credentials."""
    endpoint, _, rest = path.removeprefix(PREFIX).partition("/")
    shown = {
        name: "(set)" if name.lower() in _SECRET_HEADERS else text for name, text in headers.items()
    }
    return CaughtRequest(endpoint, method, "/" + rest, query, shown, _parsed(raw, headers))


def is_for_us(path: str) -> bool:
    """Say whether a request is for the catch-all or its OAuth2 server."""
    return path.startswith(PREFIX) or path == TOKEN_PATH


def _parsed(raw: bytes, headers: Mapping[str, str]) -> Any:
    if not raw:
        return None
    kind = headers.get("content-type", "")
    try:
        if kind.startswith("application/x-ndjson"):
            return [orjson.loads(line) for line in raw.splitlines() if line]
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw[:_BODY_BYTES].decode(errors="replace")
    if kind.startswith("application/x-www-form-urlencoded"):
        return {name: one[0] if len(one) == 1 else one for name, one in parse_qs(text).items()}
    return text


def _fits(rule: AnswerRule, came: CaughtRequest, raw: bytes) -> bool:
    return (
        rule.endpoint in ("", came.endpoint)
        and rule.method.upper() in ("", came.method)
        and rule.path in came.path
        and rule.contains.encode() in raw
    )


def _reply(rule: AnswerRule) -> Reply:
    given = json_answer(rule.status, {} if rule.body is None else rule.body)
    more = tuple((name.lower().encode(), text.encode()) for name, text in rule.headers.items())
    body = rule.body.encode() if isinstance(rule.body, str) else given.body
    return Reply(rule.status, body, (*given.headers, *more))

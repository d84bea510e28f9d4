"""The requests to Insider that deliver nothing: reading, and making people anonymous.

Reading asks two paths only, both by POST: one profile's attributes, and what the panel defines.
People are made anonymous only at an operator's command. Deleting a whole profile is not among it,
and never will be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

import httpx
import orjson

from segrelay.worker.contract.answer_words import with_known_words
from segrelay.worker.contract.connections import tls_context, why_no_answer
from segrelay.worker.contract.settings import Authorization, Destination, Settings
from segrelay.worker.contract.settings.urls import join
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.errors import ConfigurationInvalid, OperationsMustAct

PROFILE_PATH: Final = "/api/user/v1/profile"
COLUMNS_PATH: Final = "/api/user/v3/metadata/columns"
READS_A_MINUTE: Final = 360
"""Readings a minute: Insider allows 1,000 units, a reading costs 2.5, others may need some."""

_TIMEOUT_SECONDS: Final = 20.0
_MOST_BYTES: Final = 10_000_000
_LONGEST_WAIT_SECONDS: Final = 65.0
"""The longest wait for a reading, in seconds: a minute's quota is full again by then."""
_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 200, 400, 401, 403, 404, 429
_SERVER_ERROR: Final = 500
_MESSAGES: Final = ("error", "message")


class InsiderUnreadable(OperationsMustAct):
    """Insider gave no answer, or one that can't be read."""


class InsiderRefuses(OperationsMustAct):
    """Insider does not accept our credentials."""


class ProfileReader(Protocol):
    """A reader of profiles at Insider, or a fake of one."""

    def profile(self, who: Mapping[str, Any], attributes: Sequence[str]) -> dict[str, Any] | None:
        """Return attributes of a profile; None if Insider does not know it."""
        ...


@dataclass(frozen=True, slots=True)
class Column:
    """An attribute or event that the panel defines.

    Args:
        kind: Its type as the panel calls it; "" = it does not say.
        parameters: The types of an event's parameters, by their names.
    """

    key: str
    kind: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


class InsiderReader:
    """Reads from one destination, within the quota. To be closed.

    Every request raises `InsiderUnreadable` if there is no answer, or one that Insider does not
    give, and `InsiderRefuses` if it does not accept our credentials.
    """

    def __init__(
        self,
        settings: Settings,
        destination: Destination,
        *,
        a_minute: float = READS_A_MINUTE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        authorization = settings.authorization_of(destination)
        self.name = destination.name
        self.a_minute = a_minute
        self.label = (authorization.label or authorization.name) if authorization else "none"
        self._base_url = destination.base_url
        self._authorization = destination.authorization
        self._sleep = sleep
        self._next_at = 0.0
        self._client = _client(authorization, ipv4_only=settings.delivery.ipv4_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def profile(self, who: Mapping[str, Any], attributes: Sequence[str]) -> dict[str, Any] | None:
        """Return attributes of a profile; None if Insider does not know it.

        Args:
            who: `identifiers` or `insider_id`, as they were sent.
            attributes: Names; custom ones begin with `c_`.
        """
        body = {**who, "attributes": list(attributes), "quota": True}
        status, answer = self._ask(PROFILE_PATH, body)
        if status == _NOT_FOUND:
            return None
        if status != _OK:
            raise self._unreadable(PROFILE_PATH, status, answer)
        found = _attributes(answer)
        if found is None:
            raise self._unreadable(PROFILE_PATH, status, answer)
        self._obey(answer)
        return found

    def columns(self, table: str) -> dict[str, Column]:
        """Return the definitions of the panel in the table `contacts` or `events`, by key."""
        status, answer = self._ask(COLUMNS_PATH, {"table": table})
        rows = answer.get("data") if isinstance(answer, dict) else answer
        if status != _OK or not isinstance(rows, list):
            raise self._unreadable(COLUMNS_PATH, status, answer)
        columns = [_column(row) for row in rows if isinstance(row, dict) and "key" in row]
        return {column.key: column for column in columns}

    def _ask(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        status, answer = self._once(path, body)
        if status == _TOO_MANY:
            self._sleep(_LONGEST_WAIT_SECONDS)
            status, answer = self._once(path, body)
        if status in (_UNAUTHORIZED, _FORBIDDEN) or (
            status == _BAD_REQUEST and "partner" in message_of(answer).lower()
        ):
            raise InsiderRefuses(
                f"Insider refuses the authorization '{self.label}' ({status}: {message_of(answer)})"
                f" at {self._url(path)}: check the partner name and the request token in"
                f" [authorizations.{self._authorization}], and in Insider's panel whether the key"
                " is locked to addresses (then delivery.ipv4_only may help)."
            )
        return status, answer

    def _once(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        self._pace()
        try:
            with self._client.stream(
                "POST",
                self._url(path),
                content=orjson.dumps(body),
                headers={"Content-Type": "application/json", "Accept": "application/json"},
            ) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > _MOST_BYTES:
                        break
                return response.status_code, json_or_none(bytes(content))
        except httpx.HTTPError as error:
            raise InsiderUnreadable(
                f"{self._url(path)} gave no answer ({why_no_answer(error)}): check the network and"
                f" destinations.{self.name}.base_url. If that is a sandbox, start it with"
                " `segrelay sandbox`."
            ) from None

    def _pace(self) -> None:
        now = time.monotonic()
        if now < self._next_at:
            self._sleep(self._next_at - now)
        self._next_at = max(now, self._next_at) + 60 / self.a_minute

    def _obey(self, answer: Any) -> None:
        """Delay the next reading if the answer says that the minute's quota is used up."""
        quota = answer.get("quota") if isinstance(answer, dict) else None
        if not isinstance(quota, dict):
            return
        told: list[Any] = [quota.get(name) for name in ("cost", "used", "total")]
        if not all(type(number) in (int, float) for number in told):
            return
        cost, used, total = told
        if used + 2 * cost > total > 0:  # the next reading, and one of somebody else
            self._next_at = time.monotonic() + _LONGEST_WAIT_SECONDS

    def _unreadable(self, path: str, status: int, answer: Any) -> InsiderUnreadable:
        told = message_of(answer)
        return InsiderUnreadable(
            f"{self._url(path)} answered {status}{f' ({told})' if told else ''}, which Insider does"
            f" not answer here: {_advice(status, self.name)}."
        )

    def _url(self, path: str) -> str:
        return join(self._base_url, path)


def _advice(status: int, destination: str) -> str:
    if status >= _SERVER_ERROR:
        return "try again in some minutes"
    if status == _TOO_MANY:
        return "somebody else uses up the quota for reading; try again in some minutes"
    return f"check destinations.{destination}.base_url, and whether a proxy answers in its place"


def json_or_none(content: bytes) -> Any:
    """Return the value of a text that is JSON, else None."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def message_of(answer: Any) -> str:
    """Return the message of an answer; "" if it has none."""
    if not isinstance(answer, dict):
        return ""
    text = next((answer[key] for key in _MESSAGES if isinstance(answer.get(key), str)), "")
    return with_known_words(normalise_message(text))


def _attributes(answer: Any) -> dict[str, Any] | None:
    """Return the attributes in an answer, in either of the two shapes known from examples."""
    if not isinstance(answer, dict):
        return None
    inner = answer.get("data")
    found = (inner if isinstance(inner, dict) else answer).get("attributes")
    return found if isinstance(found, dict) else None


def _column(row: Mapping[str, Any]) -> Column:
    rows = row.get("params")
    parameters = {
        str(one["key"]): str(one.get("type") or "")
        for one in (rows if isinstance(rows, list) else [])
        if isinstance(one, dict) and "key" in one
    }
    return Column(str(row["key"]), str(row.get("type") or "").lower(), parameters)


def _client(authorization: Authorization | None, *, ipv4_only: bool) -> httpx.Client:
    """Return a client that sends the headers and parameters of an authorization."""
    try:
        return httpx.Client(
            headers=authorization.revealed_headers() if authorization else {},
            params=authorization.revealed_parameters() if authorization else {},
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
            follow_redirects=False,
            transport=httpx.HTTPTransport(
                verify=tls_context(authorization.authority if authorization else ""),
                trust_env=False,
                local_address="0.0.0.0" if ipv4_only else None,  # noqa: S104 - any address, of IPv4
            ),
        )
    except (ValueError, UnicodeError):
        raise ConfigurationInvalid(
            f"authorizations.{authorization.name if authorization else ''}: a header or parameter"
            " holds characters that HTTP does not allow."
        ) from None


ANONYMIZE_PATH: Final = "/api/user/v1/anonymize"
ANONYMIZED_A_MINUTE: Final = 450
"""People made anonymous a minute: Insider allows 500, by a summary of its documentation."""

_IDENTITIES_OK: Final = 200
_CLIENT_ERRORS: Final = range(400, 500)
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 1.0


class InsiderIdentities(InsiderReader):
    """Client that makes people anonymous at Insider, at a limited rate; to be closed."""

    def anonymize(self, who: Mapping[str, Any]) -> str | None:
        """Make a person anonymous; returns None, or what Insider said to refuse it."""
        body = {"identifiers": dict(who)}
        for tries_left in reversed(range(_TRIES)):
            try:
                status, answer = self._ask(ANONYMIZE_PATH, body)
            except InsiderUnreadable:
                if not tries_left:
                    raise
            else:
                if status == _IDENTITIES_OK:
                    return None
                if status in _CLIENT_ERRORS:
                    return f"{status}: {message_of(answer) or 'without a reason'}"
                if not tries_left:
                    raise self._unreadable(ANONYMIZE_PATH, status, answer)
            time.sleep(_PAUSE_SECONDS)
        raise AssertionError(ANONYMIZE_PATH)

"""Requests to Insider that deliver nothing: reading people and its panel, and anonymizing people.

Reading asks two paths only, both by POST: one profile's attributes, and what the panel defines.
People are made anonymous only at an operator's command. Deleting a whole profile is not among it,
and never will be.

Insider drops silently what its panel does not define. An undefined list of audiences is a problem;
any other attribute, event or type a warning. A person is read back to compare what Insider holds
with what was sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final, Literal, NamedTuple, Self

import httpx
import orjson

from segrelay.worker.checks.triggers import list_of as list_in
from segrelay.worker.checks.triggers import preview_sample, users_of
from segrelay.worker.contract.connections import tls_context, why_no_answer
from segrelay.worker.contract.printable import with_known_words
from segrelay.worker.contract.settings import Authorization, Destination, Settings, Trigger
from segrelay.worker.contract.settings.sections import AUDIENCE_ATTRIBUTE
from segrelay.worker.contract.settings.urls import join
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.insider.api import CUSTOM
from segrelay.worker.errors import ConfigurationInvalid, OperationsMustAct, SegrelayError

PROFILE_PATH: Final = "/api/user/v1/profile"
COLUMNS_PATH: Final = "/api/user/v3/metadata/columns"
ANONYMIZE_PATH: Final = "/api/user/v1/anonymize"
_A_MINUTE: Final = 360
"""Requests a minute: Insider allows 1,000 units, a reading costs 2.5, others may need some; and 500
people who are made anonymous."""

_TIMEOUT_SECONDS: Final = 20.0
_MOST_BYTES: Final = 10_000_000
_LONGEST_WAIT_SECONDS: Final = 65.0
"""The longest wait for a reading, in seconds: a minute's quota is full again by then."""
_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 200, 400, 401, 403, 404, 429
_SERVER_ERROR: Final = 500
_CLIENT_ERRORS: Final = range(400, 500)


class InsiderUnreadable(OperationsMustAct):
    """Insider gave no answer, or one that can't be read."""


class InsiderRefuses(OperationsMustAct):
    """Insider does not accept our credentials."""


class InsiderReader:
    """Reads from one destination, and anonymizes people there, within the quota. To be closed.

    Every request raises `InsiderUnreadable` if there is no answer, or one that Insider does not
    give, and `InsiderRefuses` if it does not accept our credentials.
    """

    def __init__(
        self,
        settings: Settings,
        destination: Destination,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        authorization = settings.authorization_of(destination)
        self.name = destination.name
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
            who: The person's `identifiers` or `insider_id`, as they were sent.
            attributes: The names of the attributes; custom ones begin with `c_`.
        """
        status, answer = self._ask(PROFILE_PATH, {**who, "attributes": list(attributes)})
        if status == _NOT_FOUND:
            return None
        # The attributes stand in either of the two shapes known from examples.
        document = _object(answer)
        found = (_object(document.get("data")) or document).get("attributes")
        if status != _OK or not isinstance(found, dict):
            raise self._unreadable(PROFILE_PATH, status, answer)
        return found

    def columns(self, table: str) -> dict[str, str]:
        """Return the keys of the panel in the table `contacts` or `events`, each with its type.

        The type is as the panel calls it; "" = it does not say.
        """
        status, answer = self._ask(COLUMNS_PATH, {"table": table})
        rows = answer.get("data") if isinstance(answer, dict) else answer
        if status != _OK or not isinstance(rows, list):
            raise self._unreadable(COLUMNS_PATH, status, answer)
        found = (row for row in map(_object, rows) if "key" in row)
        return {str(row["key"]): str(row.get("type") or "").lower() for row in found}

    def anonymize(self, who: Mapping[str, Any]) -> str | None:
        """Make a person anonymous at Insider; return Insider's refusal, None = it is done."""
        status, answer = self._ask(ANONYMIZE_PATH, {"identifiers": dict(who)})
        if status in _CLIENT_ERRORS:
            return f"{status}: {message_of(answer) or 'without a reason'}"
        if status != _OK:
            raise self._unreadable(ANONYMIZE_PATH, status, answer)
        return None

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
                try:
                    return response.status_code, orjson.loads(content)
                except orjson.JSONDecodeError:
                    return response.status_code, None
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
        self._next_at = max(now, self._next_at) + 60 / _A_MINUTE

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


def message_of(answer: Any) -> str:
    """Return the message of an answer; "" if it has none."""
    told = (_object(answer).get(key) for key in ("error", "message"))
    text = next((one for one in told if isinstance(one, str)), "")
    return with_known_words(normalise_message(text))


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


_INSIDER: Final = "insider"


def lists_audience(held: Mapping[str, Any], audience: str, attribute: str) -> bool:
    """Say whether the list of audiences in a custom attribute names this audience."""
    listed = held.get(CUSTOM + attribute)
    return audience in listed if isinstance(listed, list) else listed == audience


def _named(user: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    attributes = _object(user.get("attributes"))
    yield from ((name, value) for name, value in attributes.items() if name != "custom")
    for name, value in _object(attributes.get("custom")).items():
        yield CUSTOM + name, value


def list_of(settings: Settings, trigger: Trigger) -> str:
    """Return the attribute in which a trigger keeps a list of audiences; "" = it keeps none.

    Where the sample does not render, its direction and path decide.
    """
    previewed = preview_sample(settings, trigger, datetime.now(UTC))
    return list_in(trigger, previewed and previewed.body)


def sample_attributes(settings: Settings, trigger: Trigger) -> list[str]:
    """Return the names under which Insider returns what a trigger sends for its sample."""
    users = sample_users(settings, trigger) or ()
    return [name for user in users for name, _ in _named(user)]


def sample_users(settings: Settings, trigger: Trigger) -> list[dict[str, Any]] | None:
    """Return the users that a trigger would send for its sample; None if it can't be rendered.

    Where shaping leaves nothing to send it is the users as rendered.
    """
    previewed = preview_sample(settings, trigger, datetime.now(UTC))
    if previewed is None or previewed.body is None:
        return None
    return list(previewed.shaped.users) if previewed.shaped else users_of(previewed.body)


_NEAR: Final = 0.75
_KINDS: Final[Mapping[str, Collection[type]]] = {
    kind: types
    for kinds, types in (
        ("string text date datetime", {str}),
        ("number float", {int, float}),
        ("integer", {int}),
        ("boolean bool", {bool}),
        ("array list strings numbers", {list}),
    )
    for kind in kinds.split()
}
"""The Python types that fit each type of the panel; a type that is missing here is not checked."""
_WORDS: Final = {str: "a text", bool: "a boolean", list: "an array", dict: "an object"}


class LiveFinding(NamedTuple):
    """A problem of a trigger or an authorization that the panel shows."""

    location: str
    severity: Literal["error", "warning"]
    message: str


def check_live(settings: Settings) -> Iterator[LiveFinding]:
    """Ask the panels of all destinations of Insider's API for what the triggers' samples send."""
    for destination in settings.destinations.values():
        if destination.api != _INSIDER:
            continue
        try:
            with InsiderReader(settings, destination) as reader:
                contacts, events = reader.columns("contacts"), reader.columns("events")
        except SegrelayError as error:
            yield LiveFinding(f"destinations.{destination.name}", "error", error.message)
            continue
        for trigger in settings.triggers_of(destination.name):
            location, users = f"triggers.{trigger.name}", sample_users(settings, trigger)
            if users is None:
                message = "its template does not render its sample, so what it sends is not known"
                yield LiveFinding(location, "warning", message)
            audiences = CUSTOM + str(trigger.settings[AUDIENCE_ATTRIBUTE])
            found = (pair for user in users or () for pair in _misfits(user, contacts, events))
            for name, message in dict.fromkeys(found):
                yield LiveFinding(location, "error" if name == audiences else "warning", message)


def _misfits(
    user: Mapping[str, Any], contacts: Mapping[str, str], events: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the names that the panel lacks or has with another type, each with a message."""
    removed = _object(user.get("custom"))
    partial, whole = _object(removed.get("partial")), removed.get("whole")
    sent = dict(_named(user)) | {CUSTOM + name: value for name, value in partial.items()}
    named = [("attribute", name, value, contacts) for name, value in sent.items()]
    if isinstance(whole, list):
        named += [("attribute", f"{CUSTOM}{name}", ..., contacts) for name in whole]
    for event in map(_object, user.get("events") or ()):
        named.append(("event", str(event.get("event_name")), ..., events))
    for what, name, value, columns in named:
        shown, kinds = name.removeprefix(CUSTOM), _KINDS.get(columns.get(name, ""))
        if value is None or value in ("", [], {}):
            continue
        if name not in columns:
            near = next(iter(get_close_matches(name, columns, 1, _NEAR)), "")
            hint = f"; did you mean {near.removeprefix(CUSTOM)}?" if near else ""
            told = "is not defined in Insider's panel: it is dropped there"
            yield name, f"{what} {shown} {told}{hint}"
        elif kinds and value is not ... and type(value) not in kinds:
            sends = _WORDS.get(type(value), "a number")
            told = f"is a {columns[name]} in Insider's panel, the template sends {sends}"
            yield name, f"{what} {shown} {told}: it is dropped there"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

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


class Column(NamedTuple):
    """An attribute or event that the panel defines.

    Attributes:
        kind: Its type as the panel calls it; "" = it does not say.
        parameters: The types of an event's parameters, by their names.
    """

    kind: str
    parameters: Mapping[str, str]


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
            who: `identifiers` or `insider_id`, as they were sent.
            attributes: Names; custom ones begin with `c_`.
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

    def columns(self, table: str) -> dict[str, Column]:
        """Return the definitions of the panel in the table `contacts` or `events`, by key."""
        status, answer = self._ask(COLUMNS_PATH, {"table": table})
        rows = answer.get("data") if isinstance(answer, dict) else answer
        if status != _OK or not isinstance(rows, list):
            raise self._unreadable(COLUMNS_PATH, status, answer)
        return {
            str(row["key"]): Column(str(row.get("type") or "").lower(), dict(_parameters(row)))
            for row in map(_object, rows)
            if "key" in row
        }

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


def _parameters(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rows = row.get("params")
    for one in map(_object, rows if isinstance(rows, list) else ()):
        if "key" in one:
            yield str(one["key"]), str(one.get("type") or "")


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
_KINDS: Final[Mapping[str, frozenset[type]]] = {
    "string": frozenset({str}),
    "text": frozenset({str}),
    "number": frozenset({int, float}),
    "integer": frozenset({int}),
    "float": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "bool": frozenset({bool}),
    "date": frozenset({str}),
    "datetime": frozenset({str}),
    "array": frozenset({list}),
    "list": frozenset({list}),
    "strings": frozenset({list}),
    "numbers": frozenset({list}),
}
"""The Python types that fit each type of the panel; a type that is missing here is not checked."""


class LiveFinding(NamedTuple):
    """A problem of a trigger or an authorization that the panel shows.

    Attributes:
        trigger: "" = it is about the destination.
        name: The field of a body that it is about, or `event_name`; "" = none.
    """

    location: str
    severity: Literal["error", "warning"]
    message: str
    trigger: str = ""
    name: str = ""


def check_live(settings: Settings) -> list[LiveFinding]:
    """Ask the panels of all destinations of Insider's API."""
    findings: list[LiveFinding] = []
    for destination in settings.destinations.values():
        if destination.api != _INSIDER:
            continue
        try:
            with InsiderReader(settings, destination) as reader:
                findings += check_panel(reader, settings, settings.triggers_of(destination.name))
        except SegrelayError as error:
            location = f"destinations.{destination.name}"
            findings.append(LiveFinding(location, "error", error.message))
    return findings


def check_panel(
    reader: InsiderReader, settings: Settings, triggers: Sequence[Trigger]
) -> Iterator[LiveFinding]:
    """Compare what the templates of triggers send for their samples with what a panel defines."""
    contacts, events = reader.columns("contacts"), reader.columns("events")
    for trigger in triggers:
        location, users = f"triggers.{trigger.name}", sample_users(settings, trigger)
        if users is None:
            message = "its template does not render its sample, so what it sends is not known"
            yield LiveFinding(location, "warning", message, trigger.name)
        complaints = (
            complaint
            for user in users or ()
            for complaint in _of_user(user, trigger, contacts, events)
        )
        for severity, message, name in dict.fromkeys(complaints):
            yield LiveFinding(location, severity, message, trigger.name, name)


_Complaint = tuple[Literal["error", "warning"], str, str]
"""A problem of a user object: its severity, its message, and the field that is concerned."""


def _of_user(
    user: Mapping[str, Any],
    trigger: Trigger,
    contacts: Mapping[str, Column],
    events: Mapping[str, Column],
) -> Iterator[_Complaint]:
    removed = _object(user.get("custom"))
    partial = {CUSTOM + name: value for name, value in _object(removed.get("partial")).items()}
    audiences = CUSTOM + str(trigger.settings[AUDIENCE_ATTRIBUTE])
    for name, value in (dict(_named(user)) | partial).items():
        problem = _misfit("attribute", name, value, contacts)
        if problem:
            severity: Literal["error", "warning"] = "error" if name == audiences else "warning"
            yield severity, problem, name.removeprefix(CUSTOM)
    whole = removed.get("whole")
    for name in whole if isinstance(whole, list) else ():
        if CUSTOM + str(name) not in contacts:
            yield "warning", _undefined("attribute", CUSTOM + str(name), contacts), str(name)
    for event in user.get("events") or ():
        yield from _of_event(_object(event), events)


def _of_event(event: Mapping[str, Any], events: Mapping[str, Column]) -> Iterator[_Complaint]:
    name = str(event.get("event_name"))
    if name not in events:
        yield "warning", _undefined("event", name, events), "event_name"
        return
    columns = {
        CUSTOM + key.removeprefix(CUSTOM): Column(kind, {})
        for key, kind in events[name].parameters.items()
    }
    for key, value in _object(_object(event.get("event_params")).get("custom")).items():
        problem = _misfit(f"parameter of {name}", CUSTOM + key, value, columns)
        if problem:
            yield "warning", problem, key


def _misfit(what: str, name: str, value: Any, columns: Mapping[str, Column]) -> str:
    if value is None or value in ("", [], {}):
        return ""
    shown = name.removeprefix(CUSTOM)
    column = columns.get(name)
    if column is None:
        return _undefined(what, name, columns)
    kinds = _KINDS.get(column.kind)
    if kinds and type(value) not in kinds:
        return (
            f"{what} {shown} is a {column.kind} in Insider's panel, the template sends"
            f" {_words(value)}: it is dropped there"
        )
    return ""


def _undefined(what: str, name: str, columns: Collection[str]) -> str:
    near = next(iter(get_close_matches(name, columns, 1, _NEAR)), "")
    hint = f"; did you mean {near.removeprefix(CUSTOM)}?" if near else ""
    shown = name.removeprefix(CUSTOM)
    return f"{what} {shown} is not defined in Insider's panel: it is dropped there{hint}"


def _words(value: Any) -> str:
    words = {str: "a text", bool: "a boolean", list: "an array", dict: "an object"}
    return words.get(type(value), "a number")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

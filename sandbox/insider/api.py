"""Insider's user API as a state machine from requests to answers, without IO or a clock.

The panel's definitions stand first, because Insider silently drops what they do not name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from segrelay.sandbox.exchange import Reply, SlidingWindow, counted, denial, error, json_answer
from segrelay.sandbox.insider.profiles import InsiderProfile, Profiles, remove, write
from segrelay.sandbox.insider.rules import (
    OBJECT_ATTRIBUTES,
    UPSERT,
    Complaint,
    check_delete,
    check_identity,
    check_removals,
    check_upsert,
    identity_keys,
)
from segrelay.sandbox.settings import MAX_CUSTOM_ATTRIBUTES, AttributeKind, SandboxSettings

_SCALARS: Final = frozenset({str, int, float})
_DATE: Final = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?[Zz]$", re.ASCII)
_LANGUAGE: Final = re.compile(r"^[a-z]{2}_[A-Z]{2}$")
_COUNTRY: Final = re.compile(r"^[A-Z]{2}$")
_EVENT_SECONDS: Final = 92 * 86_400
_PURCHASE_SECONDS: Final = 730 * 86_400
"""The ages at which events are not written any more."""
_MAX_USERS: Final = 1_000

Validator = Callable[[Any], object]
_TYPES: Final[dict[AttributeKind, frozenset[type]]] = {
    "string": frozenset({str}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "date": frozenset({str}),
    "array": frozenset({list}),
    "any": frozenset({str, int, float, bool, list, dict}),
}
_SHAPES_KEPT: Final = 1_000
_CHECKS: Final[dict[AttributeKind, Validator]] = {
    "date": _DATE.match,
    "array": lambda values: _SCALARS.issuperset(map(type, values)),
}
DEFAULT_KINDS: Final[dict[str, AttributeKind]] = {
    **dict.fromkeys(("email", "phone_number", "uuid", "name", "surname", "city"), "string"),
    **dict.fromkeys(("gender", "language", "country", "lo", "app_version"), "string"),
    **dict.fromkeys(("static_segment_id", "list_id"), "array"),
    "age": "number",
    "birthday": "date",
    **dict.fromkeys(("email_optin", "sms_optin", "whatsapp_optin", "gdpr_optin"), "boolean"),
}


class Kinds:
    """The defined names, with the type and form that their values must have.

    Bodies come in few shapes (the same names with values of the same types), so what follows from a
    shape is worked out once.
    """

    def __init__(self, kinds: Mapping[str, AttributeKind]) -> None:
        self.types = {name: _TYPES[kind] for name, kind in kinds.items()}
        self.checks = {name: _CHECKS[kind] for name, kind in kinds.items() if kind in _CHECKS}
        self._shapes: dict[tuple[Any, ...], tuple[set[str], list[tuple[str, Validator]]]] = {}

    def define(self, name: str, kind: AttributeKind) -> None:
        """Define a name unless it is defined already."""
        if name not in self.types:
            self.types[name] = _TYPES[kind]
            self._shapes.clear()

    def misfits(self, values: Mapping[str, Any]) -> set[str]:
        """Return the names that are undefined or whose value does not fit."""
        shape = (*values, *map(type, values.values()))
        known = self._shapes.get(shape)
        wrong, checks = known or self._learn(shape, values)
        for name, check in checks:
            if not check(values[name]):
                wrong = wrong | {name}
        return wrong

    def _learn(
        self, shape: tuple[Any, ...], values: Mapping[str, Any]
    ) -> tuple[set[str], list[tuple[str, Validator]]]:
        wrong = {
            name for name, value in values.items() if type(value) not in self.types.get(name, ())
        }
        checks = [(name, self.checks[name]) for name in values.keys() - wrong & self.checks.keys()]
        if len(self._shapes) < _SHAPES_KEPT:
            self._shapes[shape] = wrong, checks
        return wrong, checks


_DEFAULT: Final = Kinds(DEFAULT_KINDS)
_DEFAULT.checks |= {
    "language": _LANGUAGE.match,
    "country": _COUNTRY.match,
    **dict.fromkeys(
        ("static_segment_id", "list_id"), lambda values: {int}.issuperset(map(type, values))
    ),
}
_NO_KINDS: Final = Kinds({})


class Panel:
    """Selects the attributes and events of a user that are written."""

    def __init__(self, settings: SandboxSettings, drops: Counter[tuple[str, str]]) -> None:
        self._settings = settings
        self._drops = drops
        self._custom = Kinds(settings.panel_attributes)
        self._events = {event: Kinds(kinds) for event, kinds in settings.panel_events.items()}

    def default_attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the default attributes that are written."""
        return self._kept(attributes, _DEFAULT, "attribute")

    def custom_attributes(self, custom: Mapping[str, Any]) -> dict[str, Any]:
        """Return the custom attributes that are written."""
        if self._settings.accept_anything:
            self._define(custom)
        return self._kept(custom, self._custom, "attribute")

    def event(self, event: Mapping[str, Any], now: float) -> dict[str, Any] | None:
        """Return the event as it is written; None if it is dropped."""
        name = event["event_name"]
        kinds = self._events.get(name)
        if kinds is None and not self._settings.accept_anything:
            self._drops["undefined_event", name] += 1
            return None
        written_at = datetime.fromisoformat(event["timestamp"].upper()).timestamp()
        if now - written_at > (_PURCHASE_SECONDS if name == "purchase" else _EVENT_SECONDS):
            self._drops["old_event", name] += 1
            return None
        parameters = event.get("event_params") or {}
        if kinds is None:
            return {**event, "event_params": parameters}
        custom = self._kept(parameters.get("custom") or {}, kinds, "parameter")
        return {
            "event_name": name,
            "timestamp": event["timestamp"],
            "event_params": {
                **self._kept(parameters, _NO_KINDS, "parameter"),
                "custom": custom,
            },
        }

    def columns(self, table: str) -> list[dict[str, Any]]:
        """Return the definitions as the metadata path lists them."""
        if table == "events":
            return [
                {"key": event, "display_name": event, "params": _described(kinds)}
                for event, kinds in self._settings.panel_events.items()
            ]
        custom = {f"c_{name}": kind for name, kind in self._settings.panel_attributes.items()}
        return _described({**DEFAULT_KINDS, **custom})

    def _kept(self, values: Mapping[str, Any], kinds: Kinds, what: str) -> dict[str, Any]:
        wrong = kinds.misfits(values)
        kept = {**values}
        for name in wrong:
            del kept[name]
            if name != "custom":
                reason = "mistyped" if name in kinds.types else "undefined"
                self._drops[f"{reason}_{what}", name] += 1
        return kept

    def _define(self, custom: Mapping[str, Any]) -> None:
        for name in custom:
            if len(self._custom.types) >= MAX_CUSTOM_ATTRIBUTES:
                return
            self._custom.define(name, "any")


def _described(kinds: Mapping[str, AttributeKind]) -> list[dict[str, Any]]:
    return [{"key": name, "display_name": name, "type": kind} for name, kind in kinds.items()]


_ROOT: Final = frozenset(
    {"users", "skip_hook", "error_callback_endpoint", "append", OBJECT_ATTRIBUTES}
)
_TOO_MANY: Final = error(429, "rejected: too many requests")
_QUOTA_SECONDS: Final = 60.0
USERS_AT_ONCE: Final = 20
"""The number of users that are written at once, in less than a millisecond."""


@dataclass(frozen=True, slots=True)
class ArrivedRequest:
    """One request as it arrived; names of headers in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Write:
    """A request that was admitted; it takes effect when it is applied.

    Attributes:
        keys: The identifiers of each user, as `kind:value`.
        append: The value of `append` for the whole body; None if it has none.
        objects: The body's own `object_attributes`.
    """

    path: str
    users: list[Any]
    keys: list[tuple[str, ...]]
    skip_hook: bool
    append: bool | None = None
    objects: Any = None


@dataclass(slots=True)
class RequestTally:
    """Counts of requests and users since the start."""

    users_received: int = 0
    users_applied: int = 0
    users_refused: int = 0
    skip_hook_requests: int = 0
    skip_hook_users: int = 0
    journeys_started: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def of_users(self) -> dict[str, Any]:
        """Return the counts of users as the summary shows them."""
        return {
            "received": self.users_received,
            "applied": self.users_applied,
            "refused": self.users_refused,
            "skip_hook": self.skip_hook_users,
            "errors": dict(self.errors.most_common(50)),
        }


class Insider:
    """An account at Insider: its credentials, limits, panel and profiles."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.profiles = Profiles()
        self.drops: Counter[tuple[str, str]] = Counter()
        """The values that Insider would silently drop, by reason and name."""
        self.tally = RequestTally()
        self.received = SlidingWindow()
        self.admitted = SlidingWindow()
        self.quota = SlidingWindow()
        self.limited = 0
        self.configure(settings)

    def configure(self, settings: SandboxSettings) -> None:
        """Use other settings from now on; profiles stay."""
        self.settings = settings
        self._panel = Panel(settings, self.drops)

    def admit(self, call: ArrivedRequest, now: float) -> Reply | Write:
        """Admit or refuse a request to a writing path by its headers, the limits and its form."""
        self.received.add(now, self.settings.window_seconds)
        refusal = self.denied(call.headers) or self._over_limit(now) or self._oversize(call.body)
        return refusal or self._parse(call)

    def apply(self, request: Write, now: float) -> Reply:
        """Apply a write to the profiles, user by user, and answer it."""
        steps = self.applying(request, now)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                answer: Reply = end.value
                return answer

    def applying(self, request: Write, now: float) -> Generator[None, None, Reply]:
        """Apply a write as `apply` does, but yield after each few users."""
        errors: dict[str, list[str]] = {}
        failed = set()
        check, take = (
            (check_upsert, self._upsert) if request.path == UPSERT else (check_delete, self._delete)
        )
        for index, (user, keys) in enumerate(zip(request.users, request.keys, strict=True)):
            problems = check(user) or self._poisoned(user) or take(user, keys, request, now)
            if problems:
                failed.add(index)
                errors |= {each.key(index): [each.message] for each in problems}
            if index % USERS_AT_ONCE == USERS_AT_ONCE - 1:
                yield
        return self._counted(request, errors, frozenset(failed))

    def erase(self, call: ArrivedRequest) -> Reply:
        """Delete whole profiles for good, which segrelay never asks for."""
        body = object_of(call.body)
        users = body.get("users") if type(body.get("users")) is list else [body]
        gone = [self.profiles.erase(identity_keys(user)) for user in users or []]
        if not any(gone):
            return error(404, "no such user for these identifiers: no data")
        return json_answer(200, {"success": True})

    def read_profile(self, call: ArrivedRequest, now: float) -> Reply:
        """Answer with the attributes of one profile; reading has a quota of its own."""
        refusal = self._over_quota(now)
        if refusal:
            return refusal
        body = object_of(call.body)
        wanted = body.get("attributes")
        if check_identity(body):
            return error(400, "identifiers must be defined: bad request")
        if type(wanted) is not list and type(body.get("events")) is not dict:
            return error(400, "attributes or events must be defined: bad request")
        profile = self.profiles.find(identity_keys(body))
        if profile is None:
            return error(404, "no such user for these identifiers: no data")
        answer: dict[str, Any] = {"attributes": _read_back(profile, wanted or [])}
        if body.get("quota"):
            total = self.settings.profile_units_per_minute
            cost = self.settings.profile_read_cost
            used = self.quota.count(now, _QUOTA_SECONDS) * cost
            answer["quota"] = {"cost": cost, "used": used, "total": total}
        return json_answer(200, answer)

    def read_columns(self, call: ArrivedRequest) -> Reply:
        """Answer with the columns of the panel."""
        table = object_of(call.body).get("table")
        if table not in {"contacts", "events"}:
            return error(400, "table must be contacts or events: bad request")
        return json_answer(200, self._panel.columns(table))

    def denied(self, headers: Mapping[str, str]) -> Reply | None:
        """Return the refusal of wrong credentials; None if they are right."""
        settings = self.settings
        partner, token = headers.get("x-partner-name", ""), headers.get("x-request-token", "")
        if settings.credentials_status == 400:  # noqa: PLR2004 - HTTP
            return denial(400, "Partner is invalid.")
        if settings.credentials_status:
            return denial(settings.credentials_status, "Access Denied")
        if not partner or partner != partner.lower():
            return denial(400, "Partner is invalid.")
        if not token:
            return denial(401, "Access Denied")
        if token != (settings.token.get_secret_value() or token):
            return denial(403, "Access Denied")
        if not headers.get("content-type", "").startswith("application/json"):
            return error(400, "Content-Type must be application/json: bad request")
        return None

    def _over_limit(self, now: float) -> Reply | None:
        window = self.settings.window_seconds
        if self.admitted.count(now, window) < self.settings.limit_per_minute:
            self.admitted.add(now, window)
            return None
        self.limited += 1
        return _TOO_MANY

    def _over_quota(self, now: float) -> Reply | None:
        reads = self.quota.count(now, _QUOTA_SECONDS) + 1
        if reads * self.settings.profile_read_cost > self.settings.profile_units_per_minute:
            return _TOO_MANY
        self.quota.add(now, _QUOTA_SECONDS)
        return None

    def _oversize(self, body: bytes) -> Reply | None:
        limit = self.settings.max_bytes
        if len(body) <= limit:
            return None
        text = f"request body is bigger than maximum allowed size {limit:,} bytes"
        return error(400, text)

    def _parse(self, call: ArrivedRequest) -> Reply | Write:
        try:
            body = orjson.loads(call.body)
        except orjson.JSONDecodeError:
            return error(400, "invalid json: bad request")
        users = body.get("users") if type(body) is dict else None
        if type(users) is not list or not users:
            return error(400, "users must be defined: bad request")
        if len(users) > _MAX_USERS:
            return error(400, f"users must be at most {_MAX_USERS}: bad request")
        for name in ("skip_hook", "append"):
            if type(body.get(name, False)) is not bool:
                return error(400, f"{name} must be a boolean: bad request")
        for name in body.keys() - _ROOT:
            self.drops["undefined_root_field", name] += 1
        skip_hook = body.get("skip_hook", False)
        self.tally.users_received += len(users)
        if skip_hook:
            self.tally.skip_hook_requests += 1
            self.tally.skip_hook_users += len(users)
        return Write(
            call.path,
            users,
            [identity_keys(user) for user in users],
            skip_hook,
            body.get("append"),
            body.get(OBJECT_ATTRIBUTES),
        )

    def _upsert(
        self, user: dict[str, Any], keys: tuple[str, ...], request: Write, now: float
    ) -> list[Complaint]:
        profile = self.profiles.claim(keys)
        profile.updated_at = now
        attributes = user.get("attributes")
        if attributes:
            self._write(profile, attributes, append=self._appends(user, request))
        inner = attributes.get(OBJECT_ATTRIBUTES) if attributes else None
        self._keep_objects(profile, (request.objects, user.get(OBJECT_ATTRIBUTES), inner))
        for event in user.get("events") or ():
            written = self._panel.event(event, now)
            if written is not None:
                self.profiles.log_event(profile, written)
                self.tally.journeys_started += not request.skip_hook
        return []

    def _appends(self, user: dict[str, Any], request: Write) -> bool:
        if "append" in user:
            return bool(user["append"])
        if "not_append" in user:
            return not user["not_append"]
        return request.append is not False

    def _keep_objects(self, profile: InsiderProfile, given: tuple[Any, ...]) -> None:
        """Keep object attributes as they were sent: how Insider patches them is not known."""
        for objects in given:
            if objects is None:
                continue
            default, custom = profile.attributes()
            profile.replace({**default, OBJECT_ATTRIBUTES: objects}, custom)

    def _write(self, profile: InsiderProfile, attributes: dict[str, Any], *, append: bool) -> None:
        default, custom = profile.attributes()
        known = {name: value for name, value in attributes.items() if name != OBJECT_ATTRIBUTES}
        new = self._panel.default_attributes(known)
        new_custom = self._panel.custom_attributes(attributes.get("custom") or {})
        write(default, new, append=append)
        write(custom, new_custom, append=append)
        profile.replace(default, custom)

    def _delete(
        self, user: dict[str, Any], keys: tuple[str, ...], _request: Write, now: float
    ) -> list[Complaint]:
        profile = self.profiles.find(keys)
        if profile is None:
            return []
        profile.updated_at = now
        kept = check_removals(user)
        if kept:
            return kept
        default, custom = profile.attributes()
        mistyped = remove(default, user) + remove(custom, user.get("custom", {}))
        profile.replace(default, custom)
        for name in mistyped:
            self.drops["not_an_array", name] += 1
        return []

    def _poisoned(self, user: Any) -> list[Complaint]:
        settings = self.settings
        if not settings.poison or settings.poison_status != 200:  # noqa: PLR2004 - HTTP
            return []
        if settings.poison.encode() not in orjson.dumps(user):
            return []
        return [Complaint("attributes.custom", "value[*].regexp(^[^.]+$)", "value is not accepted")]

    def _counted(
        self, request: Write, errors: dict[str, list[str]], failed: frozenset[int]
    ) -> Reply:
        self.tally.users_refused += len(failed)
        self.tally.users_applied += len(request.users) - len(failed)
        self.tally.errors.update(key.split(".", 2)[-1] for key in errors)
        return counted(len(request.users), errors, failed)


def object_of(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; an empty one where it is none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if type(value) is dict else {}


def _read_back(profile: InsiderProfile, wanted: list[Any]) -> dict[str, Any]:
    """Return attributes by the names that the reading path uses, e.g. `c_` before custom ones."""
    default, custom = profile.attributes()
    found = {"gdpr" if name == "gdpr_optin" else name: value for name, value in default.items()}
    for key in profile.keys:
        kind, _, value = key.partition(":")
        found.setdefault(kind, value)
    found |= {f"c_{name}": value for name, value in custom.items()}
    return found if "*" in wanted else {name: found[name] for name in wanted if name in found}


def anonymize(insider: Insider, call: ArrivedRequest) -> Reply:
    """Remove the identifiers and the default attributes of a profile."""
    if not insider.profiles.anonymize(identity_keys(object_of(call.body))):
        return error(404, "no such user for these identifiers: no data")
    return json_answer(200, {"success": True})

"""Problems of a configuration: in its form, and across its tables.

A problem has its place and, where there is one, a hint. Among the problems are texts that name a
secret (`env:NAME`, `file:PATH`) where they would be taken literally, and secrets that more people
can read than need to.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ValidationError

from segrelay.worker.contract.printable import did_you_mean
from segrelay.worker.contract.protection import key_problem
from segrelay.worker.contract.settings.http import (
    PARTNER_NAME,
    REQUEST_TOKEN,
    Authorization,
    HttpRequests,
    TemplateChoice,
    leaves,
    secrets_of,
)
from segrelay.worker.contract.settings.sections import (
    ALL_AUDIENCES,
    AS_OF_HINT,
    Destination,
    Trigger,
)
from segrelay.worker.contract.settings.urls import (
    INSIDER_PATHS,
    INSIDER_PER_MINUTE,
    erases,
    is_loopback,
    is_same_origin,
    join,
    literal_address,
    refuse_address_reason,
    refuse_reason,
)
from segrelay.worker.contract.settings.values import (
    LITERAL,
    REFERENCE,
    KeyPath,
    Secret,
    is_reference,
    location_of,
)

if TYPE_CHECKING:
    from segrelay.worker.contract.settings import Settings


_KEY: Final = "[key]"
"""Pydantic's word for a key that is wrong, behind the key."""
_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false, without quotes",
    "tuple_type": "must be a list in brackets",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, or, as a warning, looks wrong.

    Args:
        path: The keys that lead to it.
        message: The problem, without a value that could be secret.
        hint: Advice; "" where that is plain.
    """

    path: KeyPath
    message: str
    hint: str = ""

    def line(self, file: str, origins: Mapping[str, str] | None = None) -> str:
        """Return the problem as one line for a person.

        Args:
            file: The file's name.
            origins: The variable that a value came from instead of the file, by location.
        """
        location = location_of(self.path)
        at = (origins or {}).get(location, location)
        return f"{file}: {at}: {self.message}" + (f" — {self.hint}" if self.hint else "")


def problems_of_form(model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    """Yield what pydantic found wrong with a file that a model describes."""
    for one in error.errors(include_url=False):
        path = tuple(step for step in one["loc"] if step != _KEY)
        context, given = one.get("ctx", {}), one.get("input")
        if one["type"] == "extra_forbidden":
            key = str(path[-1])
            in_header = "the name stands in the table's header" if key == "name" else ""
            hint = in_header or did_you_mean(key, _keys_at(model, path[:-1]))
            yield Problem(path, "unknown key", hint)
        elif isinstance(given, str) and is_reference(given) and one["type"] != REFERENCE:
            yield _misplaced(path)
        elif one["type"] == "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            hint = did_you_mean(str(given), choices, or_list=False)
            yield Problem(path, f"must be {context['expected']}", hint)
        else:
            known = _MESSAGES.get(one["type"])
            message = known.format_map(context) if known else one["msg"]
            yield Problem(path, message, context.get("hint", ""))


def _misplaced(path: KeyPath) -> Problem:
    """Return the problem of a text that names a secret where it would be taken literally."""
    hint = "put it into an authorization's headers" if "headers" in path else ""
    return Problem(path, "names a secret, which is not understood here", hint)


def _keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that the table at a path may have."""
    for step in path:
        waiting: list[Any] = [
            field.annotation for field in model.model_fields.values() if field.alias == step
        ]
        while waiting:
            kind = waiting.pop(0)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
                break
            waiting += get_args(kind)
    fields = model.model_fields.values()
    return [field.alias or "" for field in fields if field.alias == field.validation_alias]


_LOCALHOST: Final = (literal_address("127.0.0.1"), literal_address("::1"))
_FROM_HERE: Final = "relative paths start at the folder of this file"
_HTTP_ONLY: Final = 'is for destinations with api = "http" only'
_NEEDS_LYTICS: Final = "needs the table [lytics]"


def problems_of(draft: Settings) -> Iterator[Problem]:
    """Yield the problems that make the configuration unusable, though each value has its form."""
    yield from _misplaced_references(draft)
    if not (folder := draft.templates_folder).is_dir():
        yield Problem(("templates",), f"there is no folder {folder}", _FROM_HERE)
    for authorization in draft.authorizations.values():
        yield from _problems_of_authorization(authorization)
    for destination in draft.destinations.values():
        path = ("destinations", destination.name)
        named = (*path, "authorization")
        yield from _unknown(named, "authorizations", destination.authorization, draft)
        yield from _problems_of_http(draft, destination, path)
        if destination.verify_every_seconds and destination.api != "insider":
            told = 'is for destinations with api = "insider" only'
            yield Problem((*path, "verify_every"), told)
    for trigger in draft.triggers.values():
        yield from _problems_of_trigger(draft, trigger, ("triggers", trigger.name))
    for schedule in draft.sync.values():
        if not (draft.lytics or schedule.files):
            yield Problem(("sync", schedule.name), _NEEDS_LYTICS)
    for watch in draft.backfill.watch.values():
        at_watch = ("backfill", "watch", watch.name)
        if watch.audience and not watch.as_of:
            yield Problem((*at_watch, "as_of"), "is missing", AS_OF_HINT)
        if watch.as_of and not watch.audience:
            yield Problem((*at_watch, "as_of"), "needs an audience")
        for at, name in enumerate(watch.triggers):
            yield from _unknown((*at_watch, "triggers", at), "triggers", name, draft)
    notify = draft.operate.notify
    if notify and notify.url.value and (reason := refuse_reason(notify.url.value, "http")):
        told = f"{notify.url.origin} can't be posted to: {reason}"
        yield Problem(("operate", "notify", "url"), told)
    if draft.console and draft.console.exposed:
        yield Problem(("console", "listen"), draft.console.exposed, "add [console.users.NAME]")
    key = draft.protection.key if draft.protection else None
    if key and key.value is not None and (wrong_key := key_problem(key.value)):
        hint = "openssl rand -base64 32"
        yield Problem(("protection", "key"), f"{key.origin} {wrong_key}", hint)


def _misplaced_references(draft: Settings) -> Iterator[Problem]:
    """Yield a problem for each text that names a secret where none is understood."""
    for path, value in leaves(draft):
        is_note = path[-1] in {"description", "label"}
        is_source = path[0] == "sync" and path[-1] == "source"  # of a file
        if isinstance(value, str) and is_reference(value) and not (is_note or is_source):
            yield _misplaced(path)


def warnings_of(draft: Settings) -> Iterator[Problem]:
    """Yield warnings about settings that work but are probably not meant."""
    used = {trigger.destination for trigger in draft.triggers.values()}
    for name, destination in draft.destinations.items():
        if name not in used:
            yield Problem(("destinations", name), "no trigger uses it")
        if destination.api == "insider":
            yield from _warnings_of_insider(draft, destination)
    for schedule in draft.sync.values():
        path = ("sync", schedule.name)
        wanting = [one for one in draft.triggers.values() if one.wants(schedule.audience)]
        if not wanting:
            yield Problem((*path, "audience"), f"no trigger wants {schedule.audience!r}")
        if schedule.on_change and not any(trigger.on == "change" for trigger in wanting):
            told = f"no trigger wants changes of {schedule.audience!r}"
            yield Problem((*path, "on_change"), told)
    for watch in draft.backfill.watch.values():
        triggers = [draft.triggers[name] for name in watch.triggers or draft.triggers]
        names = {watch.audience, watch.audience_id} - {""}
        if names and not any(one.on == watch.on and any(map(one.wants, names)) for one in triggers):
            told = f"no trigger wants the {watch.on} of {watch.audience!r}"
            yield Problem(("backfill", "watch", watch.name, "audience"), told)
    yield from _warnings_of_twins(draft)


def _warnings_of_twins(draft: Settings) -> Iterator[Problem]:
    """Yield pairs of triggers by which the same request would be sent for the same event."""
    sent: dict[str, list[Trigger]] = {}
    for trigger in draft.triggers.values():
        destination = draft.destinations[trigger.destination]
        request = (draft.http_of(trigger), draft.template_of(trigger), trigger.settings)
        address = (destination.api, destination.base_url, destination.authorization, trigger.url)
        sent.setdefault(repr((trigger.on, *request, *address)), []).append(trigger)
    for one, other in (pair for same in sent.values() for pair in combinations(same, 2)):
        named = dict.fromkeys((*one.audiences, *other.audiences))
        if both := [name for name in named if one.wants(name) and other.wants(name)]:
            told = "all audiences" if ALL_AUDIENCES in both else ", ".join(map(repr, both))
            told = f"sends what {one.name} sends too: each {one.on} of {told} goes twice"
            hint = "take the audience out of one of them"
            yield Problem(("triggers", other.name), told, hint)


def _unknown(path: KeyPath, table: str, name: str, draft: Settings) -> Iterator[Problem]:
    """Yield a problem if a name that stands at a path is that of no table."""
    named: Mapping[str, Any] = getattr(draft, table)
    if name and name not in named:
        hint = did_you_mean(name, named) or f"add the table [{table}.{name}]"
        yield Problem(path, f"there is no [{table}.{name}]", hint)


_OWN: Final[Mapping[str, tuple[str, str]]] = {
    "oauth2": (
        "token_url client_id client_secret", "scope audience extra credentials request"
    ),
    "basic": ("user", "password"),
    "aws": ("access_key secret_key region service", ""),
}  # fmt: skip
"""The keys that are for one type of authorizations only: those that it needs, and the others."""


def _problems_of_authorization(authorization: Authorization) -> Iterator[Problem]:
    path, kind = ("authorizations", authorization.name), authorization.type
    for header, secret in authorization.headers.items():
        value = secret.value or ""
        if header.lower() == "content-type":
            yield Problem((*path, "headers", header), "is set by segrelay itself")
        if header.upper() == PARTNER_NAME and value != value.lower():
            told = f"{secret.origin} holds an uppercase letter"
            hint = "Insider wants the partner name in lower case"
            yield Problem((*path, "headers", header), told, hint)
    for other, (needed, more) in _OWN.items():
        for name in needed.split():
            if other == kind and not getattr(authorization, name):
                yield Problem((*path, name), f'is needed for type = "{kind}"')
        for name in (*needed.split(), *more.split()):
            if other != kind and name in authorization.model_fields_set:
                yield Problem((*path, name), f'is for type = "{other}" only')
    if kind == "aws" and authorization.parameters:
        yield Problem((*path, "parameters"), 'can\'t be signed with type = "aws"')
    if kind == "aws" and find_spec("botocore") is None:
        hint = "pip install 'segrelay[s3]'"
        yield Problem((*path, "type"), '"aws" needs an extra that is not installed', hint)


def _problems_of_http(
    draft: Settings, destination: Destination, path: tuple[str, ...]
) -> Iterator[Problem]:
    authorization = draft.authorization_of(destination)
    if destination.api != "http":
        if destination.http.model_fields_set:
            yield Problem((*path, "http"), _HTTP_ONLY)
        if authorization and (authorization.uses_token or authorization.signs):
            told = f'type = "{authorization.type}" {_HTTP_ONLY}'
            yield Problem((*path, "authorization"), told)
        return
    both = {header.lower() for header in authorization.headers} if authorization else set()
    for header in destination.http.headers:
        if header.lower() in both:
            yield Problem((*path, "http", "headers", header), "stands in the authorization too")
    yield from _missing_templates(draft.templates_folder, destination.http, path, {})
    host = urlsplit(destination.base_url).hostname or ""
    if reason := _refuse_host_reason(host, destination.http.networks):
        network = "127.0.0.0/8" if is_loopback(host) else host
        hint = f'allow it in [{".".join(path)}.http] with networks = ["{network}"]'
        yield Problem((*path, "base_url"), f"leads to {reason}", hint)


def _refuse_host_reason(host: str, networks: Sequence[str]) -> str | None:
    """Say why a host may not be connected to, as far as its text alone tells."""
    written = [literal_address(host)] if host.rstrip(".").lower() != "localhost" else _LOCALHOST
    reasons = [refuse_address_reason(one, networks) for one in written if one is not None]
    return reasons[0] if reasons and all(reasons) else None


def _problems_of_trigger(
    draft: Settings, trigger: Trigger, path: tuple[str, ...]
) -> Iterator[Problem]:
    if not trigger.destination:
        yield Problem((*path, "destination"), "must not be empty")
    yield from _unknown((*path, "destination"), "destinations", trigger.destination, draft)
    if destination := draft.destinations.get(trigger.destination):
        yield from _problems_of_url(trigger, destination, (*path, "url"))
        yield from _problems_of_requests(trigger, destination, path)
    if not trigger.main_template:
        yield Problem((*path, "template"), "is missing")
    named: dict[KeyPath, str] = {("template",): trigger.template, ("url",): trigger.url.template}
    yield from _missing_templates(draft.templates_folder, trigger.http, path, named)
    if trigger.sample and not (draft.folder / trigger.sample).is_file():
        yield Problem((*path, "sample"), f"there is no file {trigger.sample}", _FROM_HERE)
    for at, field in enumerate(trigger.response_fields if trigger.export_fields else ()):
        if field not in trigger.export_fields:
            told = f"{field} is not kept: it is missing in export_fields"
            yield Problem((*path, "response_fields", at), told)
    if trigger.response_stream and not draft.lytics:
        yield Problem((*path, "response_stream"), _NEEDS_LYTICS)


def _problems_of_url(
    trigger: Trigger, destination: Destination, path: KeyPath
) -> Iterator[Problem]:
    secret, is_insider = trigger.url.secret, destination.api == "insider"
    if trigger.url.template or (secret and not secret.is_set):
        return
    if not trigger.url and is_insider:
        yield Problem(path, "is missing", f"write {' or '.join(INSIDER_PATHS)}")
        return
    url = join(destination.base_url, trigger.url.value)
    if reason := refuse_reason(url, destination.api):
        told = f"{secret.origin} holds no URL that may be sent to" if secret else reason
        # No path is suggested for one that erases profiles.
        hint = did_you_mean(trigger.url.text, INSIDER_PATHS, or_list=False)
        yield Problem(path, told, hint if is_insider and not erases(url) else "")
    elif not is_same_origin(url, destination.base_url):
        hint = "the authorization would go there too: make it a destination of its own"
        yield Problem(path, f"leads to another host than {destination.base_url}", hint)


def _warnings_of_insider(draft: Settings, destination: Destination) -> Iterator[Problem]:
    path = ("destinations", destination.name)
    is_real = not is_loopback(urlsplit(destination.base_url).hostname or "")
    if is_real and destination.rate_per_minute > INSIDER_PER_MINUTE:
        told = f"is more than the {INSIDER_PER_MINUTE:,} requests a minute that Insider takes;"
        yield Problem((*path, "rate"), f"{told} it will refuse the others with 429")
    authorization = draft.authorization_of(destination)
    if not authorization:
        yield Problem(path, "has no authorization; Insider will refuse every request")
        return
    given = {header.upper() for header in authorization.headers}
    for header in (PARTNER_NAME, REQUEST_TOKEN):
        if header not in given:
            told = f"{header} is missing; Insider will refuse every request"
            yield Problem(("authorizations", authorization.name, "headers"), told)


def _problems_of_requests(
    trigger: Trigger, destination: Destination, path: tuple[str, ...]
) -> Iterator[Problem]:
    """Yield the contradictions in how the requests of a trigger are made."""
    if destination.api != "http":
        if trigger.http.model_fields_set:
            yield Problem((*path, "http"), _HTTP_ONLY)
        if trigger.url.template:
            yield Problem((*path, "url"), f"as a template {_HTTP_ONLY}")
        return
    http = destination.http.changed_by(trigger.http)
    at: KeyPath = (*path, "http")
    if http.encoding == "ndjson" and http.envelope:
        yield Problem((*at, "envelope"), "can't hold lines of JSON")
    if http.encoding in {"form", "text"} and (http.results > 1 or http.envelope):
        told = f'"{http.encoding}" holds one result: results has to be 1, without envelope'
        yield Problem((*at, "encoding"), told)
    if http.method == "GET" and trigger.template:
        hint = 'leave it out, and write url = { template = "…" }'
        yield Problem((*path, "template"), "makes a body, and a GET has none", hint)
    if failures := http.failures:
        at = (*at, "failures")
        if failures.value and not failures.of:
            told = "needs the key of a result that holds it too"
            yield Problem((*at, "value"), told, 'write of = "email"')
        if failures.of and "index" in failures.model_fields_set:
            told = "tells positions, but of tells values: one of them has to go"
            yield Problem((*at, "index"), told)
        if failures.succeeded and not failures.field:
            yield Problem((*at, "succeeded"), "needs a field whose values these are")


def _missing_templates(
    folder: Path, http: HttpRequests, path: KeyPath, named: dict[KeyPath, str]
) -> Iterator[Problem]:
    """Yield a problem for each template that is not there: of an `http` table, or named beside."""
    templates: dict[KeyPath, str] = {
        ("http", "headers", name): one for name, one in http.header_templates.items()
    }
    if isinstance(http.envelope, TemplateChoice):
        templates["http", "envelope"] = http.envelope.template
    for key, template in (named | templates).items() if folder.is_dir() else ():
        if template and not (folder / template).is_file():
            files = (file for file in folder.rglob("*") if file.suffix in {".jsonnet", ".js"})
            known = [str(file.relative_to(folder)) for file in files]
            hint = did_you_mean(template, known, or_list=False)
            yield Problem((*path, *key), f"there is no {template} in {folder}", hint)


_HINT: Final = (
    'write "env:NAME" or "file:PATH", and change the secret if others have seen this file'
)
_NAMES: Final = (f"HEADERS.{PARTNER_NAME}", "CLIENT_ID", "USER", "ACCESS_KEY")
"""The keys of an authorization whose values name an account, which is no secret by itself."""
_WITHOUT: Final = {
    "authorizations": "nothing can be sent with it",
    "triggers": "nothing can be sent with it",
    "operate": "no messages are sent",
}
_PLACEHOLDER: Final = re.compile(
    r"change.?me|replace.?me|(?:put|paste|insert).?(?:yours?|here)|your.{0,20}here"
    r"|^(?:\w+ )?(?:secret|password|token|key|todo|x+|\.+|\*+|<[^>]*>)$",
    re.IGNORECASE,
)
_LEAST_CHARACTERS: Final = 16
_GUESSABLE: Final = ("producer.webhook.", "flower.", "metrics.", "console.", "redis.")
"""The places of secrets that we ask others for: who guesses one gets in."""


def exposures(draft: Settings, redis: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield secrets that are not set, stand in the file, are placeholders, or can be guessed.

    Args:
        draft: The tables that were read.
        redis: The URLs of `[redis]` that stand in the file itself, by key.
    """
    file = draft.folder / ".env"
    if file.is_file() and file.stat().st_mode & stat.S_IROTH:
        yield Problem((".env",), f"everybody on this machine can read {file}", "chmod 600 .env")
    for path, secret in (*secrets_of(draft), *_passwords(draft, redis)):
        location = location_of(path)
        if secret.value is None:
            follows = _WITHOUT.get(str(path[0]), "what needs it can't start")
            yield Problem(path, f"{secret.origin} is not set; {follows}")
            continue
        what = "the password" if location.startswith("redis.") else "the secret"
        is_account = location.upper().split(".", 2)[-1] in _NAMES
        if secret.origin == LITERAL and not is_account:
            yield Problem(path, f"{what} itself stands in this file", _HINT)
        if _PLACEHOLDER.search(secret.value):
            yield Problem(path, f"{what} is a placeholder", "fill in the real one")
        elif location.startswith(_GUESSABLE) and len(secret.value) < _LEAST_CHARACTERS:
            told = f"{what} has fewer than {_LEAST_CHARACTERS} characters and can be guessed"
            yield Problem(path, told, "openssl rand -hex 24")


def _passwords(draft: Settings, redis: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Secret]]:
    """Yield the passwords of Redis with their places, as `secrets_of` does."""
    for key in ("url", "broker_url"):
        is_literal = key in redis and not is_reference(redis[key])
        if password := urlsplit(getattr(draft.redis, key)).password:
            yield ("redis", key), Secret(LITERAL if is_literal else "", unquote(password))

"""Checks across the tables of the configuration: names, URLs, requests, files and secrets.

Among them: texts that name a secret (`env:NAME`, `file:PATH`) where they would be taken literally,
and secrets that more people can read than need to.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from segrelay.worker.contract.protection import key_problem
from segrelay.worker.contract.settings.authorizations import (
    PARTNER_NAME,
    REQUEST_TOKEN,
    problems_of_authorization,
    secrets_of,
)
from segrelay.worker.contract.settings.http import (
    Failures,
    HttpRequests,
    TemplateChoice,
)
from segrelay.worker.contract.settings.problems import Problem, did_you_mean, location_of
from segrelay.worker.contract.settings.sections import (
    ALL_AUDIENCES,
    AS_OF_HINT,
    Destination,
    Trigger,
)
from segrelay.worker.contract.settings.urls import (
    BUCKETS,
    INSIDER_PATHS,
    INSIDER_PER_MINUTE,
    erases,
    is_listed,
    is_loopback,
    is_same_origin,
    join,
    literal_address,
    refuse_address_reason,
    refuse_reason,
)
from segrelay.worker.contract.settings.values import LITERAL, Secret, is_reference

if TYPE_CHECKING:
    from segrelay.worker.contract.settings import Settings


_LOCALHOST: Final = (literal_address("127.0.0.1"), literal_address("::1"))


def problems_of(draft: Settings, document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems that make the configuration unusable.

    Args:
        draft: The tables that were read one by one; those with a problem of their own are missing.
        document: The file. It names also these, so that they are not reported a second time.
    """
    if not draft.templates_folder.is_dir():
        yield Problem("templates", f"there is no folder {draft.templates_folder}",
                      "relative paths start at the folder of this file")  # fmt: skip
    for authorization in draft.authorizations.values():
        yield from problems_of_authorization(authorization)
    for destination in draft.destinations.values():
        yield from _problem_of_name(
            document, "authorizations", destination.authorization,
            location_of(("destinations", destination.name, "authorization")),
        )  # fmt: skip
        yield from _problems_of_http(draft, destination)
        if destination.verify_every_seconds and destination.api != "insider":
            yield Problem(location_of(("destinations", destination.name, "verify_every")),
                          'is for destinations with api = "insider" only')  # fmt: skip
    for trigger in draft.triggers.values():
        yield from _problems_of_trigger(draft, document, trigger)
    for schedule in draft.sync.values():
        if "lytics" not in document and not schedule.files:
            yield Problem(location_of(("sync", schedule.name)), "needs the table [lytics]")
    yield from _problems_of_ids(draft)
    for watch in draft.backfill.watch.values():
        path = ("backfill", "watch", watch.name)
        if watch.audience and not watch.as_of:
            yield Problem(location_of((*path, "as_of")), "is missing", AS_OF_HINT)
        if watch.as_of and not watch.audience:
            yield Problem(location_of((*path, "as_of")), "needs an audience")
        for at, name in enumerate(watch.triggers):
            yield from _problem_of_name(
                document, "triggers", name, location_of((*path, "triggers", at))
            )
    notify = draft.operate.notify
    if notify and notify.url.is_set:
        url = notify.url
        reason = refuse_reason(url.reveal(), "http")
        if reason is not None:
            yield Problem("operate.notify.url", f"{url.origin} can't be posted to: {reason}")
    if draft.console and draft.console.exposed:
        yield Problem("console.listen", draft.console.exposed, "add [console.users.NAME]")
    if draft.protection and (key := draft.protection.key).is_set:
        wrong_key = key_problem(key.reveal())
        if wrong_key:
            yield Problem("protection.key", f"{key.origin} {wrong_key}", "openssl rand -base64 32")


def _problems_of_ids(draft: Settings) -> Iterator[Problem]:
    """Yield the syncs that tell another id of an audience than what was told before."""
    ids: dict[str, str] = {}
    slugs: dict[str, str] = {}
    for schedule in draft.sync.values():
        told, audience = schedule.audience_id, schedule.audience
        if not told:
            continue
        location = location_of(("sync", schedule.name, "audience_id"))
        known = ids.setdefault(audience, schedule.told_id)
        if known != told:
            yield Problem(location, f"the audience {audience!r} has the id {known} already",
                          "an audience has one id")  # fmt: skip
        elif told != audience and slugs.setdefault(told, audience) != audience:
            yield Problem(location, f"is the id of {slugs[told]!r} already",
                          "an id stands for one audience")  # fmt: skip


def warnings_of(draft: Settings) -> Iterator[Problem]:
    """Yield warnings about settings that work but are probably not meant."""
    used = {trigger.destination for trigger in draft.triggers.values()}
    for name, destination in draft.destinations.items():
        if name not in used:
            yield Problem(location_of(("destinations", name)), "no trigger uses it")
        yield from _warnings_of_credentials(draft, destination)
    for schedule in draft.sync.values():
        wanting = [
            trigger
            for trigger in draft.triggers.values()
            if trigger.wants(schedule.audience)
            or (schedule.told_id and trigger.wants(schedule.told_id))
        ]
        if not wanting:
            yield Problem(location_of(("sync", schedule.name, "audience")),
                          f"no trigger wants {schedule.audience!r}")  # fmt: skip
        if schedule.on_change and not any(trigger.on == "change" for trigger in wanting):
            yield Problem(location_of(("sync", schedule.name, "on_change")),
                          f"no trigger wants changes of {schedule.audience!r}")  # fmt: skip
    for watch in draft.backfill.watch.values():
        triggers = [draft.triggers[name] for name in watch.triggers or draft.triggers]
        names = {watch.audience, watch.audience_id} - {""}
        if names and not any(one.on == watch.on and any(map(one.wants, names)) for one in triggers):
            yield Problem(location_of(("backfill", "watch", watch.name, "audience")),
                          f"no trigger wants the {watch.on} of {watch.audience!r}")  # fmt: skip
    yield from _warnings_of_twins(draft)
    yield from _missing_extras(draft)


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
            yield Problem(location_of(("triggers", other.name)),
                          f"sends what {one.name} sends too: each {one.on} of {told} goes twice",
                          "take the audience out of one of them")  # fmt: skip


_EXTRAS: Final = BUCKETS | {"parquet": "pyarrow", "flower": "flower"}
"""The module of each extra that a configuration may need."""


def _missing_extras(draft: Settings) -> Iterator[Problem]:
    """Yield what the configuration names and this installation can't do."""
    files = {location_of(("sync", one.name, "source")): one.files for one in draft.sync.values()}
    for one in draft.backfill.watch.values():
        files[location_of(("backfill", "watch", one.name, "source"))] = one.source
    needed = [(location, name.partition("://")[0]) for location, name in files.items()]
    needed += [(location, name.rpartition(".")[2]) for location, name in files.items()]
    for location, extra in (*needed, *([("flower", "flower")] if draft.flower else ())):
        if extra in _EXTRAS and find_spec(_EXTRAS[extra]) is None:
            yield Problem(location, "needs an extra that is not installed",
                          f"pip install 'segrelay[{extra}]'")  # fmt: skip


def _problem_of_name(
    document: Mapping[str, Any], table: str, name: str, location: str
) -> Iterator[Problem]:
    rows = document.get(table)
    named = rows if isinstance(rows, dict) else {}
    if name and name not in named:
        hint = did_you_mean(name, named) or f"add the table [{table}.{name}]"
        yield Problem(location, f"there is no [{table}.{name}]", hint)


def _problems_of_http(draft: Settings, destination: Destination) -> Iterator[Problem]:
    path = ("destinations", destination.name)
    authorization = draft.authorizations.get(destination.authorization)
    if destination.api != "http":
        if destination.http.model_fields_set:
            yield Problem(location_of((*path, "http")), HTTP_ONLY)
        if authorization and (authorization.uses_token or authorization.signs):
            told = f'type = "{authorization.type}" {HTTP_ONLY}'
            yield Problem(location_of((*path, "authorization")), told)
        return
    both = {header.lower() for header in authorization.headers} if authorization else set()
    for header in destination.http.headers:
        if header.lower() in both:
            yield Problem(location_of((*path, "http", "headers", header)),
                          "stands in the authorization too")  # fmt: skip
    if draft.templates_folder.is_dir():
        yield from missing_templates(draft.templates_folder, destination.http, path)
    host = urlsplit(destination.base_url).hostname or ""
    reason = _refuse_host_reason(host, destination.http.networks)
    if reason:
        yield Problem(location_of((*path, "base_url")), f"leads to {reason}",
                      f"allow it in [{'.'.join(path)}.http] with networks = "
                      + ('["127.0.0.0/8"]' if is_loopback(host) else f'["{host}"]'))  # fmt: skip


def _refuse_host_reason(host: str, networks: Sequence[str]) -> str | None:
    """Say why a host may not be connected to, as far as its text alone tells."""
    written = [literal_address(host)] if host.rstrip(".").lower() != "localhost" else _LOCALHOST
    reasons = [refuse_address_reason(one, networks) for one in written if one is not None]
    return reasons[0] if reasons and all(reasons) else None


def _problems_of_trigger(
    draft: Settings, document: Mapping[str, Any], trigger: Trigger
) -> Iterator[Problem]:
    path = ("triggers", trigger.name)
    if not trigger.destination:
        yield Problem(location_of((*path, "destination")), "must not be empty")
    yield from _problem_of_name(
        document, "destinations", trigger.destination, location_of((*path, "destination"))
    )
    destination = draft.destinations.get(trigger.destination)
    if destination is not None:
        yield from _problem_of_url(trigger, destination)
        yield from problems_of_requests(trigger, destination)
    if draft.templates_folder.is_dir():
        yield from problems_of_templates(draft.templates_folder, trigger)
    if trigger.sample and not (draft.folder / trigger.sample).is_file():
        yield Problem(location_of((*path, "sample")), f"there is no file {trigger.sample}",
                      "relative paths start at the folder of this file")  # fmt: skip
    kept = {*trigger.export_fields} if trigger.export_fields else {*trigger.response_fields}
    for at, field in enumerate(trigger.response_fields):
        if field not in kept:
            yield Problem(location_of((*path, "response_fields", at)),
                          f"{field} is not kept: it is missing in export_fields")  # fmt: skip
    if trigger.response_stream and "lytics" not in document:
        yield Problem(location_of((*path, "response_stream")), "needs the table [lytics]")


def _problem_of_url(trigger: Trigger, destination: Destination) -> Iterator[Problem]:
    location = location_of(("triggers", trigger.name, "url"))
    secret = trigger.url.secret
    if trigger.url.template or (secret and not secret.is_set):
        return
    if not trigger.url and destination.api == "insider":
        yield Problem(location, "is missing", f"write {' or '.join(INSIDER_PATHS)}")
        return
    url = join(destination.base_url, trigger.url.value)
    reason = refuse_reason(url, destination.api)
    if reason is not None:
        told = f"{secret.origin} holds no URL that may be sent to" if secret else reason
        yield Problem(location, told, _near_path(url, trigger, destination))
    elif not is_same_origin(url, destination.base_url) and not (
        destination.api == "http" and is_listed(url, destination.http.hosts)
    ):
        yield Problem(location, f"leads to another host than {destination.base_url}",
                      "the authorization would go there too: make it a destination of its own"
                      )  # fmt: skip


def _near_path(url: str, trigger: Trigger, destination: Destination) -> str:
    """Suggest an allowed path for a mistyped one, but not for one that erases profiles."""
    if destination.api != "insider" or erases(url):
        return ""
    near = did_you_mean(trigger.url.text, INSIDER_PATHS)
    return near if "mean" in near else ""


def _warnings_of_credentials(draft: Settings, destination: Destination) -> Iterator[Problem]:
    if destination.api != "insider":
        return
    location = location_of(("destinations", destination.name))
    is_real = not is_loopback(urlsplit(destination.base_url).hostname or "")
    if is_real and destination.rate_per_minute > INSIDER_PER_MINUTE:
        yield Problem(f"{location}.rate",
                      f"is more than the {INSIDER_PER_MINUTE:,} requests a minute that Insider"
                      " takes; it will refuse the others with 429")  # fmt: skip
    if not destination.authorization:
        yield Problem(location, "has no authorization; Insider will refuse every request")
    authorization = draft.authorizations.get(destination.authorization)
    if authorization is None:
        return
    given = {header.upper() for header in authorization.headers}
    for header in (PARTNER_NAME, REQUEST_TOKEN):
        if header not in given:
            yield Problem(location_of(("authorizations", authorization.name, "headers")),
                          f"{header} is missing; Insider will refuse every request")  # fmt: skip


HTTP_ONLY: Final = 'is for destinations with api = "http" only'


def problems_of_requests(trigger: Trigger, destination: Destination) -> Iterator[Problem]:
    """Yield the contradictions in how the requests of a trigger are made."""
    path = ("triggers", trigger.name)
    if destination.api != "http":
        if trigger.http.model_fields_set:
            yield Problem(location_of((*path, "http")), HTTP_ONLY)
        if trigger.url.template:
            yield Problem(location_of((*path, "url")), f"as a template {HTTP_ONLY}")
        return
    http = destination.http.changed_by(trigger.http)
    if http.encoding == "ndjson" and http.envelope:
        yield Problem(location_of((*path, "http", "envelope")), "can't hold lines of JSON")
    if http.encoding in {"form", "text"} and (http.results > 1 or http.envelope):
        yield Problem(location_of((*path, "http", "encoding")),
                      f'"{http.encoding}" holds one result: results has to be 1, without envelope'
                      )  # fmt: skip
    if http.failures:
        yield from _problems_of_failures(http.failures, (*path, "http", "failures"))
    if http.method == "GET" and trigger.template:
        yield Problem(location_of((*path, "template")), "makes a body, and a GET has none",
                      'leave it out, and write url = { template = "…" }')  # fmt: skip


def _problems_of_failures(failures: Failures, path: Sequence[str]) -> Iterator[Problem]:
    if failures.value and not failures.of:
        yield Problem(location_of((*path, "value")), "needs the key of a result that holds it too",
                      'write of = "email"')  # fmt: skip
    if failures.of and "index" in failures.model_fields_set:
        yield Problem(location_of((*path, "index")),
                      "tells positions, but of tells values: one of them has to go")  # fmt: skip
    if failures.succeeded and not failures.field:
        yield Problem(location_of((*path, "succeeded")), "needs a field whose values these are")


def problems_of_templates(folder: Path, trigger: Trigger) -> Iterator[Problem]:
    """Yield a problem for each template of a trigger that is not there."""
    path = ("triggers", trigger.name)
    if not trigger.main_template:
        yield Problem(location_of((*path, "template")), "is missing")
    for key, template in (("template", trigger.template), ("url", trigger.url.template)):
        if template:
            yield from _missing(folder, template, location_of((*path, key)))
    yield from missing_templates(folder, trigger.http, path)


def missing_templates(folder: Path, http: HttpRequests, path: tuple[str, ...]) -> Iterator[Problem]:
    """Yield a problem for each template of an `http` table that is not there."""
    for header, template in http.header_templates.items():
        yield from _missing(folder, template, location_of((*path, "http", "headers", header)))
    if isinstance(http.envelope, TemplateChoice):
        location = location_of((*path, "http", "envelope"))
        yield from _missing(folder, http.envelope.template, location)


def _missing(folder: Path, template: str, location: str) -> Iterator[Problem]:
    if (folder / template).is_file():
        return
    endings = {".jsonnet", ".js"}
    files = (file for file in sorted(folder.rglob("*")) if file.suffix in endings)
    there = [str(file.relative_to(folder)) for file in files]
    near = did_you_mean(template, there)
    yield Problem(location, f"there is no {template} in {folder}", near if "mean" in near else "")


_ANY: Final = "*"
_LOCATIONS: Final[tuple[tuple[str, ...], ...]] = (
    ("redis", "url"),
    ("redis", "broker_url"),
    ("authorizations", _ANY, "headers", _ANY),
    ("authorizations", _ANY, "parameters", _ANY),
    ("authorizations", _ANY, "extra", _ANY),
    ("authorizations", _ANY, "user"),
    ("authorizations", _ANY, "password"),
    ("authorizations", _ANY, "client_id"),
    ("authorizations", _ANY, "client_secret"),
    ("authorizations", _ANY, "access_key"),
    ("authorizations", _ANY, "secret_key"),
    ("authorizations", _ANY, "session_token"),
    ("authorizations", _ANY, "authority"),
    ("triggers", _ANY, "url"),
    ("producer", "webhook", "secret"),
    ("protection", "key"),
    ("producer", "webhook", "secret", _ANY),
    ("flower", "password"),
    ("lytics", "token"),
    ("metrics", "token"),
    ("console", "secret"),
    ("console", "users", _ANY, "password"),
    ("operate", "notify", "url"),
    ("sync", _ANY, "source"),
)
"""The key paths at which a secret is understood, and that of a sync's source, a file."""
_NOTES: Final = frozenset({"description", "label"})
_IN_HEADERS: Final = "put it into an authorization's headers"

_Path = tuple[str | int, ...]


def misplaced_references(document: Any, path: _Path = ()) -> Iterator[Problem]:
    """Yield a problem for each text of the file that names a secret where none is understood."""
    if isinstance(document, str):
        if is_reference(document) and not _is_understood(path):
            hint = _IN_HEADERS if "headers" in path else ""
            yield Problem(location_of(path), "names a secret, which is not understood here", hint)
    elif isinstance(document, dict):
        for key, value in document.items():
            yield from misplaced_references(value, (*path, key))
    elif isinstance(document, list):
        for at, value in enumerate(document):
            yield from misplaced_references(value, (*path, at))


def _is_understood(path: _Path) -> bool:
    if path and path[-1] in _NOTES:
        return True
    return any(
        len(location) == len(path)
        and all(want in (_ANY, step) for want, step in zip(location, path, strict=True))
        for location in _LOCATIONS
    )


_HINT: Final = (
    'write "env:NAME" or "file:PATH", and change the secret if others have seen this file'
)
_NAMES: Final = (f"HEADERS.{PARTNER_NAME}", "CLIENT_ID", "USER", "ACCESS_KEY")
"""The keys of an authorization whose values name an account, which is no secret by itself."""
_REDIS_URLS: Final = ("url", "broker_url")


_UNSENT: Final = "nothing can be sent with it"
_WITHOUT: Final = {
    "authorizations": _UNSENT,
    "triggers": _UNSENT,
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
_BETTER: Final = "openssl rand -hex 24"


def exposures(
    draft: Settings, redis: Mapping[str, Any], overridden: Container[str]
) -> Iterator[Problem]:
    """Yield secrets that are not set, stand in the file, are placeholders, or can be guessed.

    Args:
        draft: The tables that were read.
        redis: The table `[redis]`, with what the environment puts in its place.
        overridden: Key paths whose values came from the environment.
    """
    file = draft.folder / ".env"
    if _others_can_read(file):
        yield Problem(".env", f"everybody on this machine can read {file}", "chmod 600 .env")
    for location, secret in (*secrets_of(draft), *_passwords(draft, redis, overridden)):
        if secret.value is None:
            follows = _WITHOUT.get(location.partition(".")[0], "what needs it can't start")
            yield Problem(location, f"{secret.origin} is not set; {follows}")
            continue
        what = "the password" if location.startswith("redis.") else "the secret"
        is_account = location.upper().split(".", 2)[-1] in _NAMES
        if secret.origin == LITERAL and not is_account:
            yield Problem(location, f"{what} itself stands in this file", _HINT)
        if _PLACEHOLDER.search(secret.value):
            yield Problem(location, f"{what} is a placeholder", "fill in the real one")
        elif location.startswith(_GUESSABLE) and len(secret.value) < _LEAST_CHARACTERS:
            yield Problem(location, f"{what} has fewer than {_LEAST_CHARACTERS} characters"
                          " and can be guessed", _BETTER)  # fmt: skip


def _passwords(
    draft: Settings, redis: Mapping[str, Any], overridden: Container[str]
) -> Iterator[tuple[str, Secret]]:
    """Yield the passwords of Redis with their places, as `secrets_of` does."""
    for key in _REDIS_URLS:
        location, password = f"redis.{key}", urlsplit(getattr(draft.redis, key)).password
        is_literal = location not in overridden and not is_reference(redis.get(key, ""))
        if password:
            yield location, Secret(LITERAL if is_literal else "", unquote(password))


def _others_can_read(file: Path) -> bool:
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)

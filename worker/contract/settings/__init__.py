"""The configuration: one file, validated whole, every problem listed with its place and a hint."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, ValidationError

from segrelay.worker.contract.settings.checks import (
    exposures,
    problems_of,
    problems_of_form,
    warnings_of,
)
from segrelay.worker.contract.settings.http import (
    Authorization,
    HttpRequests,
    TargetUrl,
    secrets_of,
)
from segrelay.worker.contract.settings.sections import (
    DEFAULT_AUDIENCE_ATTRIBUTE,
    BackfillTables,
    ConsoleSettings,
    DeliverySettings,
    Destination,
    FlowerSettings,
    LyticsSettings,
    MetricsSettings,
    OperateSettings,
    OutcomesSettings,
    ProducerSettings,
    ProtectionSettings,
    RedisSettings,
    RetentionSettings,
    SyncSchedule,
    Trigger,
)
from segrelay.worker.contract.settings.urls import is_loopback, join, refuse_base_reason
from segrelay.worker.contract.settings.values import (
    EMBEDDED,
    Frozen,
    Named,
    Place,
    Secret,
    Surroundings,
)
from segrelay.worker.errors import ConfigurationInvalid

__all__ = ["DEFAULT_AUDIENCE_ATTRIBUTE", "Authorization", "Destination", "Trigger"]

FILE_NAME: Final = "segrelay.toml"
FILE_VARIABLE: Final = "SEGRELAY_CONFIG"
_VARIABLES: Final = {"url": "SEGRELAY_REDIS_URL", "broker_url": "SEGRELAY_BROKER_URL"}
"""The variable of the environment that is in the place of each key of `[redis]`."""
_SOURCE: Final = "[SOURCE]"
_FINGERPRINT: Final = "[FINGERPRINT]"


class Settings(Frozen):
    """The whole configuration, with everything resolved.

    Attributes:
        source: The file's path.
        fingerprint: The fingerprint of the file's content, to see which process runs an older one.
        warnings: The settings that work but are probably not meant; one line each, with its place.
    """

    source: Path = Field(validation_alias=_SOURCE)
    templates_folder: Place = Field(default=Path("templates"), validate_default=True)
    redis: RedisSettings
    delivery: DeliverySettings = Field(default_factory=DeliverySettings)
    authorizations: Named[Authorization] = Field(default_factory=dict)
    destinations: Named[Destination] = Field(default_factory=dict)
    triggers: Named[Trigger] = Field(default_factory=dict)
    producer: ProducerSettings = Field(default_factory=ProducerSettings)
    flower: FlowerSettings | None = None
    metrics: MetricsSettings | None = None
    console: ConsoleSettings | None = None
    lytics: LyticsSettings | None = None
    operate: OperateSettings = Field(default_factory=OperateSettings)
    outcomes: OutcomesSettings = Field(default_factory=OutcomesSettings)
    protection: ProtectionSettings | None = None
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    sync: Named[SyncSchedule] = Field(default_factory=dict)
    backfill: BackfillTables = Field(default_factory=BackfillTables)
    fingerprint: str = Field(validation_alias=_FINGERPRINT)
    warnings: tuple[str, ...] = Field(default=(), validation_alias="[WARNINGS]")

    @property
    def folder(self) -> Path:
        """Return the folder of the file; relative paths in it start here."""
        return self.source.parent

    @classmethod
    def empty(cls, folder: Path) -> Self:
        """Return a configuration with nothing but defaults, as if its file were in a folder."""
        return cls(
            source=folder / FILE_NAME,
            templates_folder=folder / "templates",
            redis=RedisSettings(data_dir=folder / ".segrelay"),
            fingerprint="",
        )

    def triggers_of(self, destination: str) -> list[Trigger]:
        """Return the triggers that send to a destination."""
        return [one for one in self.triggers.values() if one.destination == destination]

    def url_of(self, trigger: Trigger) -> str:
        """Return the whole URL of a trigger, without the authorization's parameters.

        If a template makes the URL, or its secret is not set, that is the base URL.
        """
        return join(self.destinations[trigger.destination].base_url, trigger.url.value)

    def shown_url_of(self, trigger: Trigger) -> str:
        """Return the URL of a trigger as it may be printed."""
        if trigger.url.secret:
            return trigger.url.shown
        return self.url_of(trigger)

    def http_of(self, trigger: Trigger) -> HttpRequests:
        """Return the form of a trigger's requests: its destination's, as the trigger changes it."""
        return self.destinations[trigger.destination].http.changed_by(trigger.http)

    def reveal(self, trigger: Trigger) -> None:
        """Check that all secrets are set that the requests of a trigger need.

        Raises:
            ConfigurationInvalid: One is not.
        """
        authorization = self.authorization_of(self.destinations[trigger.destination])
        if authorization:
            authorization.reveal()
        if trigger.url.secret:
            trigger.url.secret.reveal()

    def template_of(self, trigger: Trigger) -> str:
        """Return the name of the template, or templates, of a trigger.

        If templates make URL or headers too, they are rendered together, and the name is an object
        as JSON: `{"body": FILE, "url": FILE, "headers": {NAME: FILE}}`.
        """
        headers = self.http_of(trigger).header_templates
        if not (headers or trigger.url.template):
            return trigger.template
        parts = {"body": trigger.template, "url": trigger.url.template, "headers": headers}
        return json.dumps({name: part for name, part in parts.items() if part})

    def authorization_of(self, destination: Destination) -> Authorization | None:
        """Return the authorization of a destination, or None if it has none."""
        return self.authorizations.get(destination.authorization)


def settings_path(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the configuration's absolute path: `path`, $SEGRELAY_CONFIG or ./segrelay.toml."""
    return (path or Path(environ.get(FILE_VARIABLE) or FILE_NAME)).expanduser().absolute()


_SYNTAX_HINTS: Final[Mapping[str, str]] = {
    "Cannot overwrite a value": "the key is there twice",
    "Cannot declare": "the table is there twice",
    "Invalid value": "text stands in quotes",
    "Invalid initial character": "a name with other characters than A-Z a-z 0-9 _ - is quoted",
    "Expected '=' after a key": "a key and its value stand on one line",
    "Illegal character": "close the quotes on the same line",
    "Unescaped '\\' in a string": "write \\\\, or the text in single quotes",
}


def _read(source: Path) -> tuple[str, dict[str, Any]]:
    """Return the file's text, and its tables.

    Raises:
        ConfigurationInvalid: It is not there, can't be read, or is not TOML.
    """
    try:
        content = source.read_bytes().decode("utf-8-sig")
        return content, tomllib.loads(content)
    except FileNotFoundError:
        told = (
            f"there is no {source} — `segrelay init DIR` writes one; {FILE_VARIABLE} names another"
        )
    except OSError as error:
        told = f"{source} can't be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        told = f"line {line}: is not UTF-8 — save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        hints = (hint for start, hint in _SYNTAX_HINTS.items() if str(error).startswith(start))
        told = " — ".join((f"not TOML: {error}", *hints))
    except RecursionError:
        told = "is nested too deeply"
    raise ConfigurationInvalid(f"{source.name}: {told}")


def _merged_environment(folder: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with what `.env` in a folder adds; the environment wins."""
    file = folder / ".env"
    if not file.is_file():
        return environ
    try:
        written = dotenv_values(file, interpolate=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationInvalid(f".env: {file} can't be read as UTF-8 text") from error
    return {key: value for key, value in written.items() if value is not None} | dict(environ)


def load_settings(
    path: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read and validate the configuration.

    Args:
        path: The file; None for `$SEGRELAY_CONFIG` or `./segrelay.toml`.
        environ: The environment; None = the process' own.

    Raises:
        ConfigurationInvalid: With every problem, one a line.
    """
    environ = os.environ if environ is None else environ
    sandbox = sandbox_url(environ)
    source = settings_path(path, environ)
    content, document = _read(source)
    environ = _merged_environment(source.parent, environ)
    redis = document.get("redis", {})
    given = {key: environ[name] for key, name in _VARIABLES.items() if environ.get(name)}
    document["redis"] = redis | given if isinstance(redis, dict) else redis
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:12]
    try:
        settings = Settings.model_validate(
            document | {_SOURCE: source, _FINGERPRINT: fingerprint},
            context=Surroundings(environ, source.parent),
            by_alias=True,
            by_name=False,
        )
    except ValidationError as error:
        problems = list(problems_of_form(Settings, error))
    else:
        problems = list(problems_of(settings))
    if problems:
        origins = {f"redis.{key}": _VARIABLES[key] for key in given}
        lines = [problem.line(source.name, origins) for problem in problems]
        raise ConfigurationInvalid("\n".join(lines))
    exposed = exposures(settings, {key: url for key, url in redis.items() if key not in given})
    warnings = [problem.line(source.name) for problem in (*warnings_of(settings), *exposed)]
    settings = settings.model_copy(update={"warnings": tuple(warnings)})
    return sandboxed(settings, sandbox) if sandbox else settings


SANDBOX_VARIABLE: Final = "SEGRELAY_SANDBOX"
"""The variable that asks for a sandbox run: all requests go to the sandbox, and nothing real is
touched.

Every process that has it works on the same sandbox run, in a Redis of its own, and every other
process on the real configuration. `0` means the real one on purpose: a command with neither is
refused where a sandbox runs.
"""
REAL: Final = "0"
"""The value of the variable with which commands work on the real Redis beside a sandbox run."""
DEFAULT_SANDBOX: Final = "http://127.0.0.1:8900"
ENDPOINTS_PATH: Final = "/to"
"""The sandbox's path for destinations of the API `http`, each of which stands below its name."""
TOKEN_PATH: Final = "/_oauth2/token"  # noqa: S105 - a path of the sandbox
_IN_PLACE_OF_SECRETS: Final = "/secret-url"
"""The path at the sandbox that replaces a trigger's secret URL."""
_HERE: Final = {"networks": ("127.0.0.0/8", "::1/128")}
"""The only networks that a destination may lead to in a sandbox run."""
_PLACEHOLDER: Final = Secret("sandbox", "sandbox")
"""The value in place of every secret: no real one is sent to the sandbox or needs to be set."""
_PLACEHOLDER_KEY: Final = Secret("sandbox", f"{'A' * 43}=")


def sandbox_url(environ: Mapping[str, str]) -> str:
    """Return the URL of the sandbox, or "" if this is no sandbox run.

    Raises:
        ConfigurationInvalid: The variable is neither 1 nor the URL of a sandbox on this machine.
    """
    value = environ.get(SANDBOX_VARIABLE, "").strip()
    if value in {"", REAL}:
        return ""
    url = DEFAULT_SANDBOX if value == "1" else value.rstrip("/")
    if refuse_base_reason(url) or not is_loopback(urlsplit(url).hostname or ""):
        raise ConfigurationInvalid(
            f"{SANDBOX_VARIABLE}: is neither 1 nor the URL of a sandbox on this machine,"
            f" e.g. {DEFAULT_SANDBOX}"
        )
    return url


def sandbox_data_dir(data_dir: Path) -> Path:
    """Return the data directory of sandbox runs beside that of the real embedded Redis."""
    return data_dir.with_name(data_dir.name + "-sandbox")


def sandboxed(settings: Settings, url: str) -> Settings:
    """Return a configuration with the sandbox in the place of Insider and Lytics.

    Redis is an embedded one beside the real data directory, whatever `redis.url` says.
    """
    data_dir = sandbox_data_dir(settings.redis.data_dir)
    redis = {"url": EMBEDDED, "broker_url": "", "data_dir": data_dir}
    told = (
        f"{SANDBOX_VARIABLE}: this is a sandbox run; everything goes to the sandbox at {url},"
        " and the real Redis is not touched"
    )
    roots = {
        name: url if one.api == "insider" else f"{url}{ENDPOINTS_PATH}/{name}"
        for name, one in settings.destinations.items()
    }
    destinations = {}
    for name, one in settings.destinations.items():
        path = "" if one.api == "insider" else urlsplit(one.base_url).path.rstrip("/")
        here = {"base_url": roots[name] + path, "http": one.http.model_copy(update=_HERE)}
        destinations[name] = one.model_copy(update=here)
    flower = settings.flower
    changed: dict[str, Any] = {
        "redis": settings.redis.model_copy(update=redis),
        "destinations": destinations,
        "triggers": {
            name: one.model_copy(update={"url": _below(one.url, roots[one.destination])})
            for name, one in settings.triggers.items()
        },
        "authorizations": {
            name: _without_secrets(one, url) for name, one in settings.authorizations.items()
        },
        "flower": flower if flower and flower.password.is_set else None,
        "operate": settings.operate.model_copy(update={"notify": None}),
        "warnings": (*settings.warnings, told),
    }
    if settings.protection:
        changed["protection"] = settings.protection.model_copy(update={"key": _PLACEHOLDER_KEY})
    if settings.lytics:
        lytics = {"base_url": url, "token": _PLACEHOLDER}
        changed["lytics"] = settings.lytics.model_copy(update=lytics)
    return settings.model_copy(update=changed)


def _below(target: TargetUrl, root: str) -> TargetUrl:
    """Return a URL of a trigger; if it is absolute or a secret, it leads to the sandbox too."""
    parts = urlsplit(target.text)
    if target.secret:
        return TargetUrl(_IN_PLACE_OF_SECRETS)
    if not parts.scheme:
        return target
    return TargetUrl(root + parts.path + (f"?{parts.query}" if parts.query else ""))


def _without_secrets(authorization: Authorization, url: str) -> Authorization:
    """Return an authorization of the same type whose secrets are placeholders."""
    changed: dict[str, Any] = {"authority": "", "parameters": {}}
    for name, value in authorization:
        if isinstance(value, Secret):
            changed[name] = _PLACEHOLDER
        elif name in {"headers", "extra"}:
            changed[name] = value | {str(key): _PLACEHOLDER for (key,), _ in secrets_of(value)}
    if authorization.uses_token:
        changed["token_url"] = url + TOKEN_PATH
    return authorization.model_copy(update=changed)

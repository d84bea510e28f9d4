"""The configuration: one file, validated whole, every problem listed with its place and a hint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import Field, ValidationError

from segrelay.worker.contract.settings.checks import exposures, problems_of, warnings_of
from segrelay.worker.contract.settings.http import Authorization, HttpRequests
from segrelay.worker.contract.settings.reading import (
    merged_environment,
    parse,
    problems_of_form,
    read_text,
)
from segrelay.worker.contract.settings.sandboxed import sandbox_url, sandboxed
from segrelay.worker.contract.settings.sections import (
    ALL_AUDIENCES,
    AUDIENCE_ATTRIBUTE,
    AUDIENCE_FLAG_PREFIX,
    DEFAULT_AUDIENCE_ATTRIBUTE,
    DEFAULT_FLAG_PREFIX,
    BackfillTables,
    BackfillWatch,
    ConsoleRole,
    ConsoleSettings,
    DeliverySettings,
    Destination,
    FlowerSettings,
    ListeningSettings,
    LyticsSettings,
    MetricsSettings,
    NotifySettings,
    OperateSettings,
    OutcomesSettings,
    ProducerSettings,
    ProtectionSettings,
    RedisSettings,
    RetentionSettings,
    SyncSchedule,
    Trigger,
    WebhookSettings,
)
from segrelay.worker.contract.settings.urls import join
from segrelay.worker.contract.settings.values import Frozen, Named, Place, Secret, Surroundings
from segrelay.worker.errors import ConfigurationInvalid

__all__ = [
    "ALL_AUDIENCES",
    "AUDIENCE_ATTRIBUTE",
    "AUDIENCE_FLAG_PREFIX",
    "DEFAULT_AUDIENCE_ATTRIBUTE",
    "DEFAULT_FLAG_PREFIX",
    "Authorization",
    "BackfillWatch",
    "ConsoleRole",
    "ConsoleSettings",
    "DeliverySettings",
    "Destination",
    "FlowerSettings",
    "ListeningSettings",
    "LyticsSettings",
    "MetricsSettings",
    "NotifySettings",
    "OperateSettings",
    "OutcomesSettings",
    "ProducerSettings",
    "ProtectionSettings",
    "RedisSettings",
    "RetentionSettings",
    "Secret",
    "Settings",
    "SyncSchedule",
    "Trigger",
    "WebhookSettings",
    "load_settings",
    "settings_path",
]

FILE_NAME: Final = "segrelay.toml"
FILE_VARIABLE: Final = "SEGRELAY_CONFIG"
_VARIABLES: Final = {"url": "SEGRELAY_REDIS_URL", "broker_url": "SEGRELAY_BROKER_URL"}
"""The variable of the environment that is in the place of each key of `[redis]`."""
_SOURCE: Final = "[SOURCE]"
_FINGERPRINT: Final = "[FINGERPRINT]"


class Settings(Frozen):
    """The whole configuration, with everything resolved.

    Attributes:
        source: The file.
        fingerprint: Of the file's content, to see which process runs an older one.
        warnings: Settings that work but are probably not meant; one line each, with its place.
    """

    source: Path = Field(validation_alias=_SOURCE)
    templates_folder: Place = Field(default=Path("templates"), validate_default=True)
    redis: RedisSettings
    delivery: DeliverySettings = DeliverySettings()
    authorizations: Named[Authorization] = Field(default_factory=dict)
    destinations: Named[Destination] = Field(default_factory=dict)
    triggers: Named[Trigger] = Field(default_factory=dict)
    producer: ProducerSettings = ProducerSettings()
    flower: FlowerSettings | None = None
    metrics: MetricsSettings | None = None
    console: ConsoleSettings | None = None
    lytics: LyticsSettings | None = None
    operate: OperateSettings = OperateSettings()
    outcomes: OutcomesSettings = OutcomesSettings()
    protection: ProtectionSettings | None = None
    retention: RetentionSettings = RetentionSettings()
    sync: Named[SyncSchedule] = Field(default_factory=dict)
    backfill: BackfillTables = BackfillTables()
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

    @property
    def told_ids(self) -> dict[str, str]:
        """Return the audiences' ids that `[sync]` tells, each with its slug; "" = not told."""
        told: dict[str, str] = {}
        for sync in self.sync.values():
            if sync.told_id:
                slug = "" if sync.audience == sync.told_id else sync.audience
                told[sync.told_id] = told.get(sync.told_id) or slug
        return told

    def sample_path(self, trigger: Trigger) -> Path | None:
        """Return the path of the trigger's own sample, or None if a shipped one is used."""
        return self.folder / trigger.sample if trigger.sample else None


def settings_path(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the configuration's absolute path: `path`, $SEGRELAY_CONFIG or ./segrelay.toml."""
    return (path or Path(environ.get(FILE_VARIABLE) or FILE_NAME)).expanduser().absolute()


def load_settings(
    path: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read and validate the configuration.

    Args:
        path: The file; None for `$SEGRELAY_CONFIG` or `./segrelay.toml`.
        environ: In the place of the process' own environment.

    Raises:
        ConfigurationInvalid: With every problem, one a line.
    """
    environ = os.environ if environ is None else environ
    sandbox = sandbox_url(environ)
    source = settings_path(path, environ)
    content = read_text(source)
    environ = merged_environment(source.parent, environ)
    document = parse(source, content)
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

"""The configuration: one file, validated whole, every problem listed with its place and a hint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self, get_args

from segrelay.worker.contract.settings.authorizations import Authorization
from segrelay.worker.contract.settings.checks import (
    exposures,
    misplaced_references,
    problems_of,
    warnings_of,
)
from segrelay.worker.contract.settings.http import HttpRequests
from segrelay.worker.contract.settings.reading import (
    SectionReader,
    merged_environment,
    parse,
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
    Section,
    SyncSchedule,
    Trigger,
    WebhookSettings,
)
from segrelay.worker.contract.settings.urls import join
from segrelay.worker.contract.settings.values import Frozen, Secret, Surroundings
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
REDIS_VARIABLE: Final = "SEGRELAY_REDIS_URL"
BROKER_VARIABLE: Final = "SEGRELAY_BROKER_URL"
_FINGERPRINT_CHARACTERS: Final = 12


class Settings(Frozen):
    """The whole configuration, with everything resolved.

    Attributes:
        source: The file.
        folder: Of the file; relative paths in it start here.
        fingerprint: Of the file's content, to see which process runs an older one.
        warnings: Settings that work but are probably not meant; one line each, with its place.
    """

    source: Path
    folder: Path
    templates_folder: Path
    redis: RedisSettings
    delivery: DeliverySettings
    authorizations: Mapping[str, Authorization] = {}
    destinations: Mapping[str, Destination] = {}
    triggers: Mapping[str, Trigger] = {}
    producer: ProducerSettings = ProducerSettings()
    flower: FlowerSettings | None = None
    metrics: MetricsSettings | None = None
    console: ConsoleSettings | None = None
    lytics: LyticsSettings | None = None
    operate: OperateSettings = OperateSettings()
    outcomes: OutcomesSettings = OutcomesSettings()
    protection: ProtectionSettings | None = None
    retention: RetentionSettings = RetentionSettings()
    sync: Mapping[str, SyncSchedule] = {}
    backfill: BackfillTables = BackfillTables()
    fingerprint: str
    warnings: tuple[str, ...] = ()

    @classmethod
    def empty(cls, folder: Path) -> Self:
        """Return a configuration with nothing but defaults, as if its file were in a folder."""
        return cls(
            source=folder / FILE_NAME,
            folder=folder,
            templates_folder=folder / "templates",
            redis=RedisSettings(data_dir=folder / ".segrelay"),
            delivery=DeliverySettings(),
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
    reader = SectionReader(Surroundings(environ, source.parent))
    document = parse(source, content, reader.problems)
    settings = _build(source, content, _overridden(document, environ, reader), reader)
    if settings is None:
        lines = [problem.line(source.name) for problem in reader.problems]
        raise ConfigurationInvalid("\n".join(lines))
    return sandboxed(settings, sandbox) if sandbox else settings


def _overridden(
    document: dict[str, Any], environ: Mapping[str, str], reader: SectionReader
) -> dict[str, Any]:
    redis = document.get("redis", {})
    if not isinstance(redis, dict):
        return document
    for key, variable in (("url", REDIS_VARIABLE), ("broker_url", BROKER_VARIABLE)):
        if environ.get(variable):
            redis = redis | {key: environ[variable]}
            reader.locations[f"redis.{key}"] = variable
    return document | {"redis": redis}


def _build(
    source: Path, content: str, document: dict[str, Any], reader: SectionReader
) -> Settings | None:
    if reader.problems:
        return None
    tables = _tables(document, reader)
    reader.refuse_unknown(document, ("templates", *tables))
    folder = source.parent
    redis: RedisSettings = tables["redis"]
    tables["redis"] = redis.model_copy(update={"data_dir": folder / redis.data_dir.expanduser()})
    settings = Settings(
        source=source,
        folder=folder,
        templates_folder=folder / reader.text(document, "templates", "templates"),
        fingerprint=hashlib.sha256(content.encode()).hexdigest()[:_FINGERPRINT_CHARACTERS],
        **tables,
    )
    reader.problems.extend(misplaced_references(document))
    reader.problems.extend(problems_of(settings, document))
    if reader.problems:
        return None
    exposed = exposures(settings, document.get("redis", {}), reader.locations)
    warnings = [problem.line(source.name) for problem in (*warnings_of(settings), *exposed)]
    return settings.model_copy(update={"warnings": tuple(warnings)})


def _tables(document: Mapping[str, Any], reader: SectionReader) -> dict[str, Any]:
    """Read each table of the file, as the type of its field says: one, perhaps none, or named."""
    tables: dict[str, Any] = {}
    for key, field in Settings.model_fields.items():
        named = (field.annotation, *get_args(field.annotation))
        kinds = [kind for kind in named if isinstance(kind, type) and issubclass(kind, Section)]
        if key == "backfill":
            watch = reader.named(BackfillWatch, document, key, "watch")
            tables[key] = BackfillTables(watch=watch)
        elif kinds and field.default == {}:
            tables[key] = reader.named(kinds[0], document, key)
        elif kinds and field.default is None:
            tables[key] = reader.optional(kinds[0], document, key)
        elif kinds:
            tables[key] = reader.table(kinds[0], document, key) or kinds[0]()
    return tables

"""The tables of `segrelay.toml`, each with its keys, its defaults and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from worker.contract.settings.fields import (
    EMBEDDED,
    BaseUrl,
    JsonTable,
    Listen,
    PerMinute,
    RedisUrl,
    Seconds,
    SecretValue,
    Switch,
    TemplateName,
    Text,
    Whole,
    between,
    wrong,
)
from worker.contract.settings.http import HttpDestination, HttpRequests

AUDIENCE_ATTRIBUTE: Final = "audience_attribute"
DEFAULT_AUDIENCE_ATTRIBUTE: Final = "lytics_computed_attr"
"""As on the page that describes Lytics' workflow for Insider."""

ALL_AUDIENCES: Final = "*"
MOST_PARTITIONS: Final = 1_024


class Frozen(BaseModel):
    """Frozen, without unknown keys, and silent about its values in errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


class Section(Frozen):
    """A table of the file."""

    description: str = ""


class RedisSettings(Section):
    """Where the events live."""

    url: RedisUrl = Field(default=EMBEDDED, repr=False)
    broker_url: RedisUrl = Field(default="", repr=False)
    data_dir: Path = Path(".segrelay")
    partitions: Whole = Field(default=16, ge=1, le=MOST_PARTITIONS)
    high_water: Whole = Field(default=1_000_000, ge=1)

    @field_validator("url")
    @classmethod
    def _is_given(cls, url: str) -> str:
        if not url:
            raise wrong("must not be empty", f'write "{EMBEDDED}" or a URL')
        return url

    @field_validator("broker_url")
    @classmethod
    def _is_no_second_embedded(cls, url: str) -> str:
        if url == EMBEDDED:
            raise wrong(f'can\'t be "{EMBEDDED}"', "leave it empty to use redis.url")
        return url


class DeliverySettings(Section):
    """How a drain works."""

    identity: Text = "email"
    lease_seconds: Annotated[Seconds, between("1s", "10m")] = Field(default=10.0, alias="lease")
    request_deadline_seconds: Annotated[Seconds, between("100ms", "10m")] = Field(
        default=20.0, alias="request_deadline"
    )
    late_seconds: Annotated[Seconds, between("0s", "1h")] = Field(default=30.0, alias="late")
    in_flight: Whole = Field(default=4, ge=1, le=64)
    ledger_retention_seconds: Annotated[Seconds, between("1m", "3650d")] = Field(
        default=90 * 86_400.0, alias="ledger_retention"
    )
    phone_region: str = "US"
    ipv4_only: Switch = False
    dead_letters_kept: Whole = Field(default=1_000_000, ge=1)

    @field_validator("phone_region")
    @classmethod
    def _is_region(cls, region: str) -> str:
        from phonenumbers import SUPPORTED_REGIONS  # noqa: PLC0415 - 0.1 s, for who sets a region

        if region not in SUPPORTED_REGIONS:
            hint = 'write the two capital letters of its code, like "US" or "GB"'
            raise wrong("is not a country with phone numbers", hint)
        return region


class Authorization(Section):
    """What proves to a destination that we may send."""

    name: str
    label: str = ""
    headers: Mapping[str, SecretValue] = {}
    parameters: Mapping[str, SecretValue] = {}


class Destination(Section):
    """Where deliveries go, and how fast."""

    name: str
    api: Literal["insider", "http"]
    base_url: BaseUrl
    authorization: str = ""
    rate_per_minute: PerMinute = Field(alias="rate")
    on_ambiguous: Literal["resend", "dead_letter"] = "resend"
    http: HttpDestination = HttpDestination()


def _with_defaults(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {AUDIENCE_ATTRIBUTE: DEFAULT_AUDIENCE_ATTRIBUTE} | settings


class Trigger(Section):
    """Which events become deliveries, and what of."""

    name: str
    destination: str
    audiences: tuple[Text, ...] = Field(min_length=1)
    on: Literal["enter", "exit", "change"]
    template: TemplateName
    url: str = ""
    export_fields: tuple[Text, ...] = ()
    settings: Annotated[JsonTable, BeforeValidator(_with_defaults)] = Field(
        default_factory=lambda: {AUDIENCE_ATTRIBUTE: DEFAULT_AUDIENCE_ATTRIBUTE}
    )
    sample: str = ""
    skip_hook: Switch | None = None
    engine: Literal["auto", "jsonnet"] = "auto"
    response_stream: str = ""
    http: HttpRequests = HttpRequests()

    @field_validator("audiences")
    @classmethod
    def _all_stands_alone(cls, audiences: tuple[str, ...]) -> tuple[str, ...]:
        if ALL_AUDIENCES in audiences and len(audiences) > 1:
            raise wrong('"*" means all audiences and stands alone')
        return audiences

    @field_validator("settings")
    @classmethod
    def _attribute_is_a_name(cls, settings: dict[str, Any]) -> dict[str, Any]:
        attribute = settings[AUDIENCE_ATTRIBUTE]
        if not isinstance(attribute, str) or not attribute.strip():
            raise wrong(f"{AUDIENCE_ATTRIBUTE} must be the name of an attribute")
        return settings

    def wants(self, audience: str) -> bool:
        """Say whether the trigger names an audience, or all."""
        return audience in self.audiences or self.audiences == (ALL_AUDIENCES,)


class ListeningSettings(Section):
    """Something that listens on an address."""

    listen: Listen

    @property
    def host(self) -> str:
        """Return the host of `listen`, without the brackets of an IPv6 address."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Return the port of `listen`."""
        return int(self.listen.rpartition(":")[2])


def _as_list(secret: Any) -> Any:
    return [secret] if isinstance(secret, str) else secret


class WebhookSettings(ListeningSettings):
    """The receiver of Lytics' webhooks. Several secrets are valid at once, for rotation."""

    listen: Listen = "127.0.0.1:8080"
    path: str = Field(default="/v1/lytics", pattern=r"^/[A-Za-z0-9._~/-]+$")
    public_url: BaseUrl | Literal[""] = ""
    secrets: Annotated[tuple[SecretValue, ...], BeforeValidator(_as_list)] = Field(
        alias="secret", min_length=1
    )


class BackfillSettings(Section):
    """How the columns of CSV files become fields."""

    columns: Mapping[Text, Text] = {}
    lists: tuple[Text, ...] = ()
    maps: tuple[Text, ...] = ()


class ProducerSettings(Section):
    """What brings events in."""

    webhook: WebhookSettings | None = None
    backfill: BackfillSettings = BackfillSettings()


class FlowerSettings(ListeningSettings):
    """Flower, behind basic authentication."""

    listen: Listen = "127.0.0.1:5555"
    user: Text = "ops"
    password: SecretValue


class LyticsSettings(Section):
    """Lytics' own API, for scans, templates and response streams."""

    base_url: BaseUrl = "https://api.lytics.io"
    token: SecretValue
    account_id: str = ""


class SyncSchedule(Section):
    """One audience that is compared with Lytics again and again.

    Args:
        on_change: Changes of members are events too.
    """

    name: str
    audience: Text
    every_seconds: Annotated[Seconds, between("1s", "30d")] = Field(alias="every")
    on_change: Switch = False

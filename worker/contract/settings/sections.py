"""The tables of `segrelay.toml`, each with its keys, its defaults and its limits."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from segrelay.worker.contract.settings.http import (
    HeaderName,
    HttpDestination,
    HttpRequests,
    NetworkText,
    TargetUrl,
    TriggerUrl,
    several,
)
from segrelay.worker.contract.settings.urls import is_loopback, is_remote
from segrelay.worker.contract.settings.values import (
    EMBEDDED,
    REFERENCE,
    BaseUrl,
    JsonTable,
    Listen,
    Named,
    NamedSection,
    OptionalTemplate,
    PerMinute,
    Place,
    RedisUrl,
    Seconds,
    SecretValue,
    Section,
    Switch,
    Text,
    Whole,
    between,
    wrong,
)

AUDIENCE_ATTRIBUTE: Final = "audience_attribute"
DEFAULT_AUDIENCE_ATTRIBUTE: Final = "lytics_computed_attr"
"""The default attribute for audiences, as Lytics' page about its workflow for Insider has it."""

AUDIENCE_FLAG_PREFIX: Final = "audience_flag_prefix"
DEFAULT_FLAG_PREFIX: Final = "lytics_in_"
"""The default beginning of the names of boolean attributes that stand for one audience each."""

ALL_AUDIENCES: Final = "*"
_FLAG_PREFIX: Final = re.compile(r"[a-z0-9_]+")


_CELERYS: Final = (
    "Celery needs a single Redis, or Sentinels; a small one will do, as nothing on it has to last"
)


def _is_cluster(url: str) -> bool:
    return url.partition("://")[0].endswith("+cluster")


class RedisSettings(Section):
    """The Redis in which the events are kept."""

    url: RedisUrl = Field(default=EMBEDDED, repr=False)
    """`embedded` starts a Valkey of its own; else `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or
    Sentinels: `redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT,HOST:PORT/SERVICE/DATABASE`,
    with `?sentinel_username=…&sentinel_password=…` if these ask for it, or some nodes of a Cluster:
    `redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT`. `rediss` means TLS. See production.md about
    [Sentinels](production.md#redis-behind-sentinels) and a
    [Cluster](production.md#redis-cluster)."""
    broker_url: RedisUrl = Field(default="", repr=False, validate_default=True)
    """Celery's own Redis, if it should not be the same; empty means the same. With a Cluster it has
    to be given, because Celery needs a single Redis, or Sentinels."""
    data_dir: Place = Field(default=Path(".segrelay"), validate_default=True)
    """The folder of the embedded Redis' files, relative to the configuration."""
    replicas: Whole = Field(default=0, ge=0, le=10)
    """The number of replicas that must have written an event, an intent or a result to their disks
    before it counts as accepted, noted or settled. With all of a master's replicas, a failover
    loses nothing that was acknowledged; while one of them is away, nothing is accepted or sent. See
    [production.md](production.md#redis-behind-sentinels)."""
    partitions: Whole = Field(default=16, ge=1, le=1_024)
    """The number of shares into which the profiles of a destination are divided. It is written into
    Redis at first use, and stays; see [production.md](production.md#the-number-of-partitions)."""
    high_water: Whole = Field(default=1_000_000, ge=1)
    """A backfill waits while this many of its deliveries are waiting."""

    @property
    def carries_messages(self) -> bool:
        """Say whether the Redis that holds the deliveries is Celery's broker, too."""
        return self.broker_url in {"", self.url}

    @field_validator("url")
    @classmethod
    def _is_given(cls, url: str) -> str:
        if not url:
            raise wrong("must not be empty", f'write "{EMBEDDED}" or a URL')
        return url

    @field_validator("broker_url")
    @classmethod
    def _carries_messages(cls, url: str, others: ValidationInfo) -> str:
        if url == EMBEDDED:
            raise wrong(f'can\'t be "{EMBEDDED}"', "leave it empty to use redis.url")
        if _is_cluster(url):
            raise wrong("can't be a Cluster", _CELERYS)
        if not url and _is_cluster(others.data.get("url", "")):
            raise wrong("is missing: redis.url is a Cluster, which can't carry messages", _CELERYS)
        return url


class DeliverySettings(Section):
    """The limits of a drain."""

    identity: Text = "email"
    """The field that tells one person from another. It cannot change while the ledger lives."""
    lease_seconds: Annotated[Seconds, between("3s", "10m")] = 10.0
    """The time for which a partition stays with a worker that has gone silent."""
    request_deadline_seconds: Annotated[Seconds, between("100ms", "10m")] = 20.0
    """The time that one request may take, from its first byte to the last byte of the answer."""
    late_seconds: Annotated[Seconds, between("0s", "1h")] = 30.0
    """The time in which a request that got no answer may still take effect at the destination."""
    in_flight: Whole = Field(default=4, ge=1, le=64)
    """The number of requests that one drain may have under way at once."""
    ledger_retention_seconds: Annotated[Seconds, between("1m", "3650d")] = 90 * 86_400.0
    """The time for which it is remembered that a person has left, after the last delivery for them.
    It is never forgotten while somebody is in an audience, or while something waits that may be
    older. New events that are older than this time are refused."""
    phone_region: str = "US"
    """The country of phone numbers that are written without a country code."""
    ipv4_only: Switch = False
    """Send over IPv4 only, for an API key that is locked to IPv4 addresses."""
    dead_letters_kept: Whole = Field(default=1_000_000, ge=1)
    """A destination pauses when it has this many dead letters; none is dropped to make room."""

    def remembers_since_us(self, now_us: int) -> int:
        """Return the time (µs) before which the ledger may have forgotten who left.

        Args:
            now_us: The time by Redis' clock.
        """
        return now_us - round(1_000_000 * self.ledger_retention_seconds)

    @field_validator("phone_region")
    @classmethod
    def _is_region(cls, region: str) -> str:
        from phonenumbers import SUPPORTED_REGIONS  # noqa: PLC0415 - 0.1 s, for who sets a region

        if region not in SUPPORTED_REGIONS:
            hint = 'write the two capital letters of its code, like "US" or "GB"'
            raise wrong("is not a country with phone numbers", hint)
        return region


class Destination(NamedSection):
    """Where deliveries go, and how fast."""

    api: Literal["insider", "http"]
    """`insider`, or `http` for any other endpoint that takes JSON."""
    base_url: BaseUrl = Field(min_length=1)
    """The beginning of the URLs of triggers. `http://` is allowed for this machine only."""
    authorization: str = ""
    """The name of an `[authorizations.NAME]` table."""
    rate_per_minute: PerMinute
    """The most requests that may be sent, such as `25000/min`, `400/s` or `1000/h`."""
    on_ambiguous: Literal["resend", "dead_letter"] = "resend"
    """The treatment of a request that may have taken effect, as a whole or in part: send it again,
    or ask a person."""
    unite: Switch = True
    """Insider only: deliveries of one person that meet in a batch share one user object."""
    verify_every_seconds: Annotated[Seconds, between("0s", "30d")] = 0.0
    """Insider only: every so often a worker [reads some people back](feeding.md#compare-and-repair)
    as `segrelay verify` does, and a difference is a problem of health; `0s`: it does not. A run
    costs 50 of the 1,000 units that Insider allows a minute for reading."""
    http: HttpDestination = Field(default_factory=HttpDestination)

    @property
    def gate_scope(self) -> str:
        """Return what destinations on one host have in common if they share a gate.

        That is the authorization. A destination without one shares its gate with no other.
        """
        return self.authorization or f"/{self.name}"


def with_defaults(settings: Any) -> Any:
    """Return the settings of a trigger with what its table leaves out."""
    if not isinstance(settings, dict):
        return settings
    return {AUDIENCE_ATTRIBUTE: DEFAULT_AUDIENCE_ATTRIBUTE} | settings


class Trigger(NamedSection):
    """A trigger: the events that become deliveries, and the template that renders them."""

    destination: str
    """The name of a `[destinations.NAME]` table."""
    audiences: tuple[Text, ...] = Field(min_length=1)
    """Slugs or ids of audiences; `["*"]` means all."""
    on: Literal["enter", "exit", "change"]
    """The kind of events that the trigger takes."""
    template: OptionalTemplate = ""
    """The file that makes the body, relative to the templates folder: Jsonnet (`.jsonnet`) or
    JavaScript (`.js`). A trigger whose `url` is a template can do without: its requests have no
    body."""
    url: TriggerUrl = TargetUrl()
    """The path below the base URL, an absolute URL, a secret such as `env:SLACK_URL`, or
    `{ template = "url.jsonnet" }`, which yields one of these for each event."""
    export_fields: tuple[Text, ...] = ()
    """Keep only these fields of a profile; an empty list keeps all."""
    settings: Annotated[JsonTable, BeforeValidator(with_defaults)] = Field(
        default_factory=lambda: {AUDIENCE_ATTRIBUTE: DEFAULT_AUDIENCE_ATTRIBUTE}
    )
    """The values that the template reads with `jobConfGet`."""
    sample: str = ""
    """A payload of your own for `config check`, relative to the configuration."""
    skip_hook: Switch | None = None
    """`true`: Insider starts no journeys. Without it, only backfills start none."""
    engine: Literal["auto", "jsonnet"] = "auto"
    """`jsonnet` renders without the faster form that is compiled to Python."""
    response_stream: str = ""
    """A stream of Lytics that is told what became of each delivery, with the answer; needs
    `[lytics]`."""
    response_headers: tuple[HeaderName, ...] = ()
    """Headers of the answer that go into the response stream."""
    response_fields: tuple[Text, ...] = ()
    """Fields of the profile that go into the response stream, to say whom it is about; without any,
    the identity does."""
    http: HttpRequests = Field(default_factory=HttpRequests)

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
        prefix = settings.get(AUDIENCE_FLAG_PREFIX, DEFAULT_FLAG_PREFIX)
        if not isinstance(prefix, str) or not _FLAG_PREFIX.fullmatch(prefix):
            raise wrong(f"{AUDIENCE_FLAG_PREFIX} must be made of a-z, 0-9 and _")
        return settings

    @property
    def audience_flag_prefix(self) -> str:
        """Return the beginning of the names of attributes that stand for one audience each."""
        return str(self.settings.get(AUDIENCE_FLAG_PREFIX, DEFAULT_FLAG_PREFIX))

    @property
    def main_template(self) -> str:
        """Return the template that stands for the trigger: of the body, or of the URL alone."""
        return self.template or self.url.template

    def wants(self, audience: str) -> bool:
        """Say whether the trigger names an audience, or all."""
        return audience in self.audiences or self.audiences == (ALL_AUDIENCES,)


class ListeningSettings(Section):
    """A server that listens on an address."""

    listen: Listen

    @property
    def host(self) -> str:
        """Return the host of `listen`, without the brackets of an IPv6 address."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class WebhookSettings(ListeningSettings):
    """The receiver of Lytics' webhooks. Several secrets are valid at once, for rotation."""

    listen: Listen = "127.0.0.1:8080"
    """The address and port to listen on."""
    path: str = Field(default="/v1/lytics", pattern=r"^/[A-Za-z0-9._~/-]+$")
    """The path at which webhooks arrive."""
    public_url: BaseUrl = ""
    """The URL by which Lytics reaches the receiver; `serve --check` posts to it."""
    max_bytes: Whole = Field(default=16 * 1024 * 1024, ge=64 * 1024, le=256 * 1024 * 1024)
    """The largest body, as sent and unpacked. A larger one is answered 413, and Lytics drops it."""
    secrets: Annotated[tuple[SecretValue, ...], BeforeValidator(several)] = Field(
        alias="secret", min_length=1
    )
    """The secret that a sender has to present; each of a list is valid, for rotation."""


class BackfillSettings(Section):
    """The way in which the columns of CSV files become fields."""

    columns: Mapping[Text, Text] = {}
    """The field for a column: `{ "E-mail" = "email" }`."""
    lists: tuple[Text, ...] = ()
    """Fields that hold lists, joined by `&` in CSV files."""
    maps: tuple[Text, ...] = ()
    """Fields that hold maps: `key=value` joined by `&` in CSV files."""


class ProducerSettings(Section):
    """The sources of events."""

    webhook: WebhookSettings | None = None
    backfill: BackfillSettings = Field(default_factory=BackfillSettings)


class FlowerSettings(ListeningSettings):
    """Flower, behind basic authentication. It is an extra: `pip install 'segrelay[flower]'`."""

    listen: Listen = "127.0.0.1:5555"
    """The address and port to listen on."""
    user: Text = "ops"
    """The name to sign in with."""
    password: SecretValue
    """The password to sign in with."""
    actions: Switch = False
    """`true`: whoever signs in can also shut workers down, stop queues and revoke tasks."""


class MetricsSettings(ListeningSettings):
    """Metrics for Prometheus, served by `segrelay metrics`."""

    listen: Listen = "127.0.0.1:9464"
    """The address and port on which `segrelay metrics` listens."""
    token: SecretValue | None = None
    """The token of `/metrics`, sent as `Authorization: Bearer TOKEN`. Without it
    `segrelay metrics` listens on this machine only."""


ConsoleRole = Literal["viewer", "operator", "revealer"]


class ConsoleUser(Section):
    """A person who may sign in to the console."""

    password: SecretValue | None = None
    """The hash that `segrelay console password` prints, as `env:NAME` or `file:PATH`. Without it
    only a proxy can say that it is this person."""
    roles: tuple[ConsoleRole, ...] = ("viewer",)
    """`viewer` looks, masked; `operator` also acts; `revealer` also sees personal data."""


class ConsoleProxy(Section):
    """A proxy in front of the console, which may have signed people in and name them."""

    header: str = Field(default="X-Forwarded-User", pattern=r"^[A-Za-z0-9-]{0,64}$")
    """The header that holds the person's name. It is believed only if `addresses` has the proxy.
    `""`: the proxy signs nobody in, and only its `X-Forwarded-For` is believed."""
    addresses: tuple[NetworkText, ...] = Field(min_length=1)
    """The addresses of the proxy, such as `10.0.0.7` or `10.1.0.0/24`. Behind it, tries to sign in
    are counted by the client that its `X-Forwarded-For` names last."""
    roles: tuple[ConsoleRole, ...] = ("viewer",)
    """The roles of people whom `users` does not name; none = they are refused."""


class ConsoleSettings(ListeningSettings):
    """The console for browsers. Without users it is read-only, masked, and for this machine."""

    listen: Listen = "127.0.0.1:8600"
    """The address and port to listen on. Elsewhere than on this machine it needs users."""
    name: str = ""
    """The environment's name, such as `production`, shown on every page."""
    colour: Literal["grey", "green", "blue", "orange", "red"] = "grey"
    """The colour of the bar that names the environment."""
    public_url: BaseUrl = ""
    """The URL in the address bar, such as `https://relay.example.com/console` behind a proxy. Its
    path is the prefix of all pages, and with `https` the cookie is sent through TLS only."""
    session_seconds: Annotated[Seconds, between("1m", "30d")] = 43_200.0
    """The time after which a person has to sign in again."""
    secret: SecretValue | None = None
    """The secret that seals sessions, any long text. Without it they end with the process."""
    users: Mapping[Text, ConsoleUser] = {}
    """The people who may sign in, by name."""
    proxy: ConsoleProxy | None = None

    @property
    def is_open(self) -> bool:
        """Say whether nobody has to sign in: whoever reaches the console may look."""
        return not (self.users or self.proxy)

    @property
    def exposed(self) -> str:
        """Return what is wrong if others could look without signing in; "" = nothing."""
        if not self.is_open or is_loopback(self.host):
            return ""
        return "more than this machine would be served, and nobody has to sign in"


class LyticsSettings(Section):
    """Lytics' own API, for scans, templates and response streams."""

    base_url: BaseUrl = Field(default="https://api.lytics.io", min_length=1)
    """The address of Lytics' API."""
    token: SecretValue
    """An API token that may read audiences."""
    account_id: str = ""
    """The account's id, if the token belongs to several accounts."""


class NotifySettings(Section):
    """Messages to a chat or another program: one when a problem begins, one when it is over."""

    url: SecretValue
    """The URL to post messages to: an incoming webhook of Slack or Teams, or an address of your
    own. It is a secret, since whoever knows it can write there."""
    format: Literal["slack", "teams", "json"] = "json"
    """The form of the messages; `json` is the problem as in `segrelay status --json`."""
    severity: Literal["ill", "attention"] = "ill"
    """`attention` also sends lesser problems, which are worth a look this week."""
    after_seconds: Annotated[Seconds, between("0s", "1h")] = 2.0
    """A problem that is over sooner is not announced."""
    remind_after_seconds: Annotated[Seconds, between("0s", "30d")] = 3_600.0
    """An ill problem that is still there after this long is told again, and so on; `0s` means
    never."""
    name: str = ""
    """The name in front of each message, for when several installations write to one place."""


class OperateSettings(Section):
    """The limits beyond which `segrelay status` calls something a problem."""

    live_within_seconds: Annotated[Seconds, between("1s", "30d")] = 60.0
    """A live event that waits for longer is a problem."""
    events_within_seconds: Annotated[Seconds, between("0s", "30d")] = 0.0
    """It is a problem if the receiver gets no event for this long; `0s` means that none is due."""
    deploy_within_seconds: Annotated[Seconds, between("0s", "1h")] = 120.0
    """The time that a rolling restart may take. Until then it is no problem that processes differ
    in configuration or templates."""
    docs_url: Text = ""
    """The address of `docs/operating.md`, or of your own copy of it. Messages link to the entry of
    their problem there."""
    notify: NotifySettings | None = None


class OutcomesSettings(Section):
    """The outcome log: the end of each delivery as a row in Redis."""

    max_bytes: Whole = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    """The most bytes of rows in Redis, in equal parts for all partitions of all destinations; a row
    takes some 50. The oldest rows of a partition go when its part is full, and all of them after
    `retention.history`."""


class ProtectionSettings(Section):
    """The key by which people's data in Redis is sealed. Without the table, it stands open."""

    key: SecretValue
    """The key: 32 random bytes in base64, as `openssl rand -base64 32` makes them.
    It has to be there before Redis is first used, and stays; whoever loses it loses all that
    waits."""

    def revealed(self) -> bytes:
        """Return the key.

        Raises:
            ConfigurationInvalid: It is not set.
        """
        return base64.b64decode(self.key.reveal())


class RetentionSettings(Section):
    """The times for which things are kept that nobody deals with; `0s` means for ever.

    A problem of health, `letters_expire` or `quarantine_expires`, comes before letters or records
    go.
    """

    dead_letters_seconds: Annotated[Seconds, between("0s", "3650d")] = 90 * 86_400.0
    """The time after its death from which a dead letter is discarded. After
    `delivery.ledger_retention` a replay leaves it out anyway, unless it is forced."""
    quarantine_seconds: Annotated[Seconds, between("0s", "3650d")] = 90 * 86_400.0
    """The time for which a record stays in the quarantine after it came last."""
    history_seconds: Annotated[Seconds, between("0s", "3650d")] = 30 * 86_400.0
    """The time for which `segrelay why` knows what became of a person's deliveries and of requests
    to the receiver, of which the newest few thousand are kept, and for which a backfill is kept
    that was read or aborted and of which nothing waits or is dead."""
    warning_seconds: Annotated[Seconds, between("1s", "365d")] = 7 * 86_400.0
    """The time for which it is a problem of health before letters or records go. Where no
    worker ran for a while, or a limit was made shorter, nothing goes before it was named."""


SOURCE_LYTICS: Final = "lytics"
SOURCE_FILE: Final = "file:"


class SyncSchedule(NamedSection):
    """One audience that is compared with its source again and again."""

    audience: Text
    """The audience to compare, as a slug, or as an id whose slug a payload or `segrelay audience
    set` has told."""
    every_seconds: Annotated[Seconds, between("1s", "30d")]
    """The time from the begin of a run to the begin of the next."""
    repair_every_seconds: Annotated[Seconds, between("1s", "30d")] = 86_400.0
    """Each run repairs where the ledger differs from the source. This is the time after which a
    difference that was repaired and is still there is repaired once more; a file that was read
    already is compared again, too."""
    source: Text = SOURCE_LYTICS
    """`lytics`, or `file:` and a pattern like `file:exports/*.csv`, relative to this file, or a URL
    like `s3://bucket/exports/*.csv` (also `gs://` and `az://`): the newest complete one is
    read, and its time of modification, the end of its writing, is the time of its events."""
    on_change: Switch = False
    """`true` also publishes changes of members, for triggers with `on = "change"`."""

    @field_validator("source")
    @classmethod
    def _is_source(cls, source: str) -> str:
        is_file = source.removeprefix(SOURCE_FILE) not in {"", source}
        if source == SOURCE_LYTICS or is_file or is_remote(source):
            return source
        raise wrong(
            "is no source",
            f'write "{SOURCE_LYTICS}", "{SOURCE_FILE}exports/*.csv" or "s3://bucket/exports/*.csv"',
            REFERENCE if source.startswith(SOURCE_FILE) else "wrong",
        )

    @property
    def files(self) -> str:
        """Return the pattern of the files that the sync reads; "" if it asks Lytics."""
        return "" if self.source == SOURCE_LYTICS else self.source.removeprefix(SOURCE_FILE)


AS_OF_COLUMN: Final = "column:"
AS_OF_KINDS: Final = ("name", "file", "now")
AS_OF_HINT: Final = 'write "name", "column:NAME", "file" or "now"'


class BackfillWatch(NamedSection):
    """A place in which each new file starts a backfill job by itself. The workers do it."""

    source: Text
    """A folder (`incoming/`), a pattern (`incoming/*.csv`), both relative to this file, or a place
    in a bucket: `s3://bucket/prefix/` or a pattern like `s3://bucket/2026-*/part-*.gz` (also `gs://`
    and `az://`). Names that begin with `.` or `_`, or end like those of unfinished files (`.part`,
    `.tmp`), are passed over."""
    every_seconds: Annotated[Seconds, between("1s", "1d")] = 60.0
    """The time between two looks."""
    settle_seconds: Annotated[Seconds, between("0s", "1d")] = 30.0
    """The time since its last modification after which a file in a folder is taken. Objects of
    buckets appear as a whole, and are taken at once."""
    existing: Literal["skip", "take"] = "skip"
    """The treatment of files that are there at the first look: left alone, or taken, too."""
    audience: str = ""
    """The audience that the people in the rows belong to, as for `segrelay backfill start`, and so
    are all that follow. Without it, the rows have to be webhook payloads."""
    audience_id: str = ""
    """The id of the audience, for templates that read it."""
    on: Literal["enter", "exit"] = "enter"
    """The direction of the rows: people who entered the audience, or who left it."""
    as_of: str = ""
    """The time at which the rows were true: `name` = as the file's name says, `column:NAME` = as
    each row says, `file` = when the file was last written to, or `now`. With an audience it has to
    be said."""
    triggers: tuple[Text, ...] = ()
    """Deliver for these triggers only; none = for all."""
    columns: tuple[Text, ...] = ()
    """Names for the columns of CSV files without a header."""
    hooks: Switch = False
    """`true`: Insider may start journeys for these people."""

    @field_validator("source")
    @classmethod
    def _is_place(cls, source: str) -> str:
        if source == "-" or source.startswith("lytics:"):
            raise wrong(
                "is no place of files", "an audience at Lytics is followed by a [sync.NAME]"
            )
        return source

    @field_validator("as_of")
    @classmethod
    def _is_moment(cls, as_of: str) -> str:
        is_column = as_of.removeprefix(AS_OF_COLUMN).strip() not in {"", as_of}
        if is_column or as_of in {"", *AS_OF_KINDS}:
            return as_of
        raise wrong("is no time of each new file", AS_OF_HINT)


class BackfillTables(Section):
    """Backfills that start by themselves."""

    watch: Named[BackfillWatch] = Field(default_factory=dict)

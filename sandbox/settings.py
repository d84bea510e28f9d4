"""The switches of the sandbox: limits, credentials, unknown behaviour of Insider, and faults.

All can be set at the start and changed while it runs.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    SecretStr,
    ValidationError,
    model_validator,
)

AUDIENCE_ATTRIBUTE: Final = "lytics_computed_attr"
"""The attribute in which segrelay keeps the audiences of a person, unless it is told otherwise."""
ENDPOINTS_PATH: Final = "/to"
"""The path below which every destination other than Insider stands, each below its name."""
TOKEN_PATH: Final = "/_oauth2/token"  # noqa: S105 - a path
"""The path of the OAuth2 server of all destinations."""
Share = float


class SandboxTable(BaseModel):
    """A table of settings: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LyticsSwitches(SandboxTable):
    """All switches of the Lytics side; durations in seconds, shares between 0 and 1."""

    token: SecretStr = SecretStr("")
    """The only token that is accepted; "" accepts every token that is not empty."""
    date_offset_seconds: float = 0.0
    """Seconds by which the clock in the header `Date` is ahead of this machine's."""

    page_token_seconds: float = Field(default=300.0, gt=0)
    """Seconds after which the token of the next page is refused."""
    status_as_text: bool = False
    """Write the status in bodies as text, `"200"` instead of 200; Lytics has sent both."""
    latency_seconds: NonNegativeFloat = 0.0
    answer_seconds: NonNegativeFloat = 0.0
    """Seconds between reading rows and answering; people who leave meanwhile are still listed."""
    error_shares: dict[str, Share] = Field(default_factory=dict)
    """Shares of the requests to the API that are answered with an error, by its status."""
    retry_after_seconds: NonNegativeInt = 1
    """Seconds in the header `Retry-After` of a 429 or 503."""
    scan_ends_after_rows: NonNegativeInt = 0
    """Rows after which a scan ends as if it were complete; `total` stays true. 0 = never."""
    repeated_rows: Share = Field(default=0.0, ge=0, le=1)
    """Share of the pages that begin with the last row of the page before."""
    hidden_rows: Share = Field(default=0.0, ge=0, le=1)
    """Share of the rows that a scan leaves out although they are members; `total` counts them."""
    seed: int = 0
    """The seed of the random draws of the Lytics side."""

    collect_status: int = Field(default=200, ge=200, le=599)
    """The status that the collect API answers with; anything but 200 keeps nothing."""

    webhook_sleep_seconds: float = Field(default=60.0, gt=0)
    """Seconds that a job sleeps after ten failures in a row; they double each time."""
    webhook_retry_seconds: float = Field(default=1.0, gt=0)
    """Seconds between two attempts of a request, if no `Retry-After` says otherwise."""


class AnswerRule(SandboxTable):
    """An answer to requests of one kind; the first rule that fits a request counts.

    Attributes:
        endpoint: The destination's name; "" = every destination.
        times: The number of requests that the rule is for; 0 = all.
    """

    endpoint: str = ""
    method: str = ""
    path: str = ""
    contains: str = ""
    status: int = Field(default=200, ge=100, le=599)
    body: Any = None
    headers: dict[str, str] = {}
    times: int = Field(default=0, ge=0)


MAX_CUSTOM_ATTRIBUTES: Final = 80
"""Largest number of custom attributes of an account (Insider's documentation)."""

AttributeKind = Literal["string", "number", "boolean", "date", "array", "any"]

_SCORES: Final = (
    "consistency frequency intensity maturity momentum propensity quantity recency volatility"
)
DEFAULT_ATTRIBUTES: Final[dict[str, AttributeKind]] = {
    "status": "string",
    AUDIENCE_ATTRIBUTE: "array",
    **{f"score_{name}": "number" for name in _SCORES.split()},
    "lytics_content": "array",
    "lytics_content_inferred": "array",
    "lytics_rollup": "array",
    "segment_prediction_percentile": "number",
}
"""Custom attributes that the shipped templates and that of Lytics' documentation send."""
DEFAULT_EVENTS: Final[dict[str, dict[str, AttributeKind]]] = {
    "lytics_trigger": {
        "id": "string",
        "audience": "string",
        "trigger": "string",
        "origin": "string",
    }
}


class FailureRule(SandboxTable):
    """A rule that makes some requests fail.

    Attributes:
        message: The text of the answer, in the shape of a denial; "" = the usual one.
        applied: True if the request takes effect all the same.
        html: True if it answers with a page, as something in front of Insider does.
    """

    status: int = Field(default=500, ge=200, le=599)
    path: str = ""
    contains: str = ""
    share: Share = Field(default=1.0, ge=0, le=1)
    message: str = ""
    applied: bool = False
    html: bool = False


class SandboxSettings(SandboxTable):
    """All switches of the sandbox; durations in seconds, shares between 0 and 1."""

    seed: int = 0
    """The seed of all random decisions."""

    token: SecretStr = SecretStr("")
    """The only token that is accepted; "" accepts every token."""
    credentials_status: Literal[0, 400, 401, 403] = 0
    """Status with which every request is refused as if the credentials were wrong; 0 = off."""

    limit_per_minute: int = Field(default=25_000, ge=0)
    """Largest number of requests on both writing paths together in any `window_seconds`."""
    window_seconds: float = Field(default=60.0, gt=0)
    profile_units_per_minute: int = Field(default=1_000, ge=0)
    """The quota for reading profiles, in units a minute."""
    profile_read_cost: float = Field(default=2.5, gt=0)
    """Units of the quota that reading a profile takes."""
    max_bytes: int = Field(default=5_000_000, ge=1)

    accept_anything: bool = False
    """Take every attribute and event as defined, up to the number of custom attributes."""
    panel_attributes: dict[str, AttributeKind] = Field(
        default_factory=lambda: dict(DEFAULT_ATTRIBUTES)
    )
    """Custom attributes that are defined, with their types."""
    panel_events: dict[str, dict[str, AttributeKind]] = Field(
        default_factory=lambda: {name: dict(kinds) for name, kinds in DEFAULT_EVENTS.items()}
    )
    """Events that are defined, with their parameters."""

    latency_seconds: NonNegativeFloat = 0.0
    jitter_seconds: NonNegativeFloat = 0.0
    """Largest number of seconds added to the latency, evenly distributed."""
    error_shares: dict[str, Share] = Field(default_factory=dict)
    """Shares of the requests that are answered with an error, by its status."""
    errors_applied: Share = Field(default=0.0, ge=0, le=1)
    """Share of the 5xx that take effect all the same."""
    lost_answers: Share = Field(default=0.0, ge=0, le=1)
    """Share of the requests that are applied, and whose connection is closed without an answer."""
    lost_requests: Share = Field(default=0.0, ge=0, le=1)
    """Share of the requests that are closed without an answer, and not applied."""
    late_share: Share = Field(default=0.0, ge=0, le=1)
    """Share of requests whose connection is closed, and that take effect `late_seconds` later."""
    late_seconds: NonNegativeFloat = 5.0

    token_endpoints: frozenset[str] = frozenset()
    """Names of the destinations other than Insider that demand a token of the sandbox."""
    answers: tuple[AnswerRule, ...] = ()
    """Rules for the answers of destinations other than Insider; without a fitting rule, 200."""
    token_seconds: float = Field(default=3_600.0, gt=0)
    """Seconds for which a token that the sandbox issues is valid."""

    track_events: bool = False
    """Remember each event by itself, so that the report `repeats` counts those that came again."""

    poison: str = ""
    """Requests whose body contains this text fail; "" = none."""
    poison_status: int = Field(default=400, ge=200, le=599)
    """Status of poisoned requests; 200 refuses only the users that contain the text."""
    failures: tuple[FailureRule, ...] = ()

    lytics: LyticsSwitches = LyticsSwitches()
    """The switches of the Lytics side."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        shares = list(self.error_shares.values())
        total = sum(shares) + self.lost_answers + self.lost_requests + self.late_share
        if min(shares, default=0) < 0 or total > 1 + 1e-9:
            raise ValueError(f"the shares of all faults together must be 0 to 1, not {total}")
        for status in self.error_shares:
            if not (status.isdecimal() and 400 <= int(status) <= 599):  # noqa: PLR2004 - HTTP
                raise ValueError(f"error_shares: {status!r} is no status from 400 to 599")
        if len(self.panel_attributes) > MAX_CUSTOM_ATTRIBUTES:
            raise ValueError(f"at most {MAX_CUSTOM_ATTRIBUTES} custom attributes an account")
        return self

    def changed(self, changes: dict[str, Any]) -> SandboxSettings:
        """Return these settings with some of them replaced; raises pydantic's ValidationError."""
        if isinstance(changes.get("lytics"), dict):
            changes = changes | {"lytics": dict(self.lytics) | changes["lytics"]}
        return SandboxSettings.model_validate({**dict(self), **changes})


def described(problems: ValidationError) -> str:
    """Return what is wrong with settings, each with its place, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'settings'}: {one['msg']}" for one in problems.errors()
    )

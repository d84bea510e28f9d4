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
    model_validator,
)

from worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from worker.contract.settings.http import Signature

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

    page_limit: int = Field(default=100, ge=1, le=1_000)
    """The most rows of a page; Lytics gives 100."""
    page_token_seconds: float = Field(default=300.0, gt=0)
    """Seconds after which the token of the next page is refused."""
    status_as_text: bool = False
    """`"status": "200"` instead of the number: both were seen."""
    latency_seconds: NonNegativeFloat = 0.0
    answer_seconds: NonNegativeFloat = 0.0
    """Seconds between reading the rows and the answer; who leaves meanwhile is still in it."""
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
    """The seed of the random draws of this side."""

    collect_status: int = Field(default=200, ge=200, le=599)
    """The status that the collect API answers with; anything but 200 keeps nothing."""
    template_update_method: Literal["PUT", "POST"] = "PUT"
    """The documents say POST, the live API takes PUT and answers POST with 405."""

    webhook_timeout_seconds: float = Field(default=10.0, gt=0)
    webhook_sleep_seconds: float = Field(default=60.0, gt=0)
    """Seconds that a job sleeps after ten failures in a row; they double each time."""
    webhook_retry_seconds: float = Field(default=1.0, gt=0)
    """Seconds between two attempts of a request, if no `Retry-After` says otherwise."""
    webhook_gives_up_seconds: float = Field(default=7_200.0, gt=0)
    """Seconds without a 200 after which a job has failed."""


class AnswerRule(SandboxTable):
    """An answer to requests of one kind; the first rule that fits a request counts.

    Attributes:
        endpoint: The destination's name; "" is every one.
        times: How many requests it is for; 0 = all.
    """

    endpoint: str = ""
    method: str = ""
    path: str = ""
    contains: str = ""
    status: int = Field(default=200, ge=100, le=599)
    body: Any = None
    headers: dict[str, str] = {}
    times: int = Field(default=0, ge=0)


class EndpointRules(SandboxTable):
    """The demands of an endpoint on its requests.

    Attributes:
        token: A header or parameter has to carry a token that the sandbox issued.
        sign: A request has to carry one of these signatures; none = it needs no signature.
        per_minute: More requests in a minute are answered 429; 0 = there is no limit.
        most: More results in a request are answered 413; 0 = there is no limit.
        at: The key of the array of results; "" = the body is the array.
    """

    token: bool = False
    sign: tuple[Signature, ...] = ()
    per_minute: int = Field(default=0, ge=0)
    most: int = Field(default=0, ge=0)
    at: str = ""


MAX_CUSTOM_ATTRIBUTES: Final = 80
"""Custom attributes of an account at most (Insider's documentation)."""

AttributeKind = Literal["string", "number", "boolean", "date", "array", "any"]
Malformed = Literal[
    "empty",
    "truncated",
    "html",
    "wrong_counts",
    "empty_object",
    "null",
    "text",
    "dripping",
    "endless",
]

_SCORES: Final = (
    "consistency frequency intensity maturity momentum propensity quantity recency volatility"
)
DEFAULT_ATTRIBUTES: Final[dict[str, AttributeKind]] = {
    "status": "string",
    DEFAULT_AUDIENCE_ATTRIBUTE: "array",
    **{f"score_{name}": "number" for name in _SCORES.split()},
    "lytics_content": "array",
    "lytics_content_inferred": "array",
    "lytics_rollup": "array",
    "segment_prediction_percentile": "number",
}
"""The attributes that the shipped template and the one of Lytics' documentation send."""
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
        message: Text of the answer, in the shape of a denial; "" gives the usual one.
        applied: Whether the request takes effect all the same.
        html: Answer with a page, as something in front of Insider does.
    """

    status: int = Field(default=500, ge=400, le=599)
    path: str = ""
    contains: str = ""
    share: Share = Field(default=1.0, ge=0, le=1)
    message: str = ""
    applied: bool = False
    html: bool = False


class SandboxSettings(SandboxTable):
    """All switches; durations in seconds, shares between 0 and 1."""

    seed: int = 0
    """The seed of all random decisions."""

    partner_name: str = ""
    """The only partner name that is accepted; "" accepts every lowercase one."""
    token: SecretStr = SecretStr("")
    """The only token that is accepted; "" accepts every token."""
    credentials_status: Literal[0, 400, 401, 403] = 0
    """Refuse every request as if the credentials were wrong; 0 is off."""

    limit_per_minute: int = Field(default=25_000, ge=0)
    """Requests on both writing paths in any `window_seconds` at most."""
    window_seconds: float = Field(default=60.0, gt=0)
    profile_units_per_minute: int = Field(default=1_000, ge=0)
    """The quota of reading profiles back."""
    profile_read_cost: float = Field(default=2.5, gt=0)
    """Units of it that one reading takes."""
    max_users: int = Field(default=1_000, ge=1)
    max_bytes: int = Field(default=5_000_000, ge=1)
    oversize_status: Literal[400, 413] = 400
    retry_after: Literal["off", "seconds", "date"] = "off"
    retry_after_seconds: int = Field(default=1, ge=0)

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
    max_custom_attributes: int = MAX_CUSTOM_ATTRIBUTES
    event_age_days: float = 92.0
    """Older custom events are not written ("about 3 months")."""
    purchase_age_days: float = 730.0
    """Older events `purchase` are not written."""
    keep_scalars: bool = True
    """Off saves memory with a million profiles: only arrays and identifiers are kept."""

    fail_count: Literal["users", "errors"] = "users"
    """Unknown: what `fail.count` counts."""
    unknown_user_delete: Literal["accept", "refuse"] = "accept"
    """Unknown: what a delete for a user answers who does not exist."""
    delete_answer: Literal["counts", "empty"] = "counts"
    """Unknown: whether attribute/delete answers counts or `{}`."""
    failed_user: Literal["nothing", "valid_part"] = "nothing"
    """Unknown: what is applied of a user that was refused."""
    identifier_delete: Literal["refuse", "ignore"] = "refuse"
    """Unknown: what deleting an attribute answers that is an identifier of the user."""
    root_append: Literal["yields", "wins"] = "yields"
    """Unknown: whether the `append` of the whole body or a user's own switch counts."""
    object_attributes: Literal["keep", "drop"] = "keep"
    """Unknown: whether an account takes objects' attributes; they are kept as they are sent."""
    append_duplicates: bool = False
    """Unknown: whether appending a value that is already there doubles it."""
    empty_array_overwrites: bool = True
    """Unknown: whether overwriting with an empty array empties it."""
    gdpr_stops: bool = False
    """`gdpr_optin: false` stops all writes of that user until it is true again."""

    latency_seconds: NonNegativeFloat = 0.0
    jitter_seconds: NonNegativeFloat = 0.0
    """Seconds added to the latency at most, evenly distributed."""
    error_shares: dict[str, Share] = Field(default_factory=dict)
    """Shares of the requests that are answered with an error, by its status."""
    errors_applied: Share = Field(default=0.0, ge=0, le=1)
    """Share of the 5xx that take effect all the same."""
    html_errors: bool = True
    """Bodies of 5xx are HTML."""
    lost_answers: Share = Field(default=0.0, ge=0, le=1)
    """Share of the requests that are applied, and whose connection is closed without an answer."""
    lost_requests: Share = Field(default=0.0, ge=0, le=1)
    """Share of the requests that are closed without an answer, and not applied."""
    late_share: Share = Field(default=0.0, ge=0, le=1)
    """Share of requests that are answered with `late_answer`, and applied `late_seconds` later."""
    late_seconds: NonNegativeFloat = 5.0
    late_answer: Literal["500", "close"] = "close"
    malformed_shares: dict[Malformed, Share] = Field(default_factory=dict)
    """Shares of the requests with a malformed answer, by its kind; all are applied."""
    drip_seconds: float = Field(default=0.5, gt=0)
    """Seconds between two bytes of a dripping answer."""
    endless_seconds: float = Field(default=120.0, gt=0)
    """Seconds after which even an endless answer ends."""

    outage_until: float = 0.0
    """The end, in Unix seconds, of an outage in which every request is answered 503."""
    endpoints: dict[str, EndpointRules] = Field(default_factory=dict)
    """The demands of other destinations than Insider, by their names."""
    answers: tuple[AnswerRule, ...] = ()
    """Rules for the answers of these destinations; without a rule that fits it is 200."""
    token_seconds: float = Field(default=3_600.0, gt=0)
    """The life of a token that the sandbox issues."""

    track_events: bool = False
    """Remember each event by itself, so that `repeats` tells which ones came again."""

    poison: str = ""
    """A body that contains it fails."""
    poison_status: int = Field(default=400, ge=200, le=599)
    """200 refuses only the users that contain it."""
    failures: tuple[FailureRule, ...] = ()

    lytics: LyticsSwitches = LyticsSwitches()
    """The switches of the Lytics side."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        shares = [*self.error_shares.values(), *self.malformed_shares.values()]
        total = sum(shares) + self.lost_answers + self.lost_requests + self.late_share
        if min(shares, default=0) < 0 or total > 1 + 1e-9:
            raise ValueError(f"the shares of all faults together must be 0 to 1, not {total}")
        for status in self.error_shares:
            if not (status.isdecimal() and 400 <= int(status) <= 599):  # noqa: PLR2004 - HTTP
                raise ValueError(f"error_shares: {status!r} is no status from 400 to 599")
        if len(self.panel_attributes) > self.max_custom_attributes:
            raise ValueError(f"at most {self.max_custom_attributes} custom attributes an account")
        return self

    def changed(self, changes: dict[str, Any]) -> SandboxSettings:
        """Return these settings with some of them replaced; raises pydantic's ValidationError."""
        if isinstance(changes.get("lytics"), dict):
            changes = changes | {"lytics": dict(self.lytics) | changes["lytics"]}
        return SandboxSettings.model_validate({**dict(self), **changes})

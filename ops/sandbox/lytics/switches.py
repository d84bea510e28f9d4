"""The switches of the Lytics side: credentials, limits, and faults."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, SecretStr

Share = float


class LyticsSwitches(BaseModel):
    """All switches of the Lytics side; durations in seconds, shares between 0 and 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

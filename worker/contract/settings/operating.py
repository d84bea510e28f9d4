"""The table `[operate]`: what counts as a problem, and where messages about problems go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from worker.contract.settings.sections import Section
from worker.contract.settings.values.fields import Seconds, SecretValue, Whole, between


class NotifySettings(Section):
    """Messages to a chat or another program: one when a problem begins, one when it is over."""

    url: SecretValue
    """The URL to post messages to: an incoming webhook of Slack or Teams, or an address of your
    own. It is a secret, since whoever knows it can write there."""
    format: Literal["slack", "teams", "json"] = "json"
    """The form of the messages; `json` is the problem as in `segrelay status --json`."""
    severity: Literal["ill", "attention"] = "ill"
    """`attention` also sends lesser problems, which are worth a look this week."""
    after_seconds: Annotated[Seconds, between("0s", "1h")] = Field(default=2.0, alias="after")
    """A problem that is over sooner is not announced."""
    name: str = ""
    """The name in front of each message, for when several installations write to one place."""


class OperateSettings(Section):
    """The limits beyond which `segrelay status` calls something a problem."""

    live_within_seconds: Annotated[Seconds, between("1s", "30d")] = Field(
        default=60.0, alias="live_within"
    )
    """A live event that waits for longer is a problem."""
    events_within_seconds: Annotated[Seconds, between("0s", "30d")] = Field(
        default=0.0, alias="events_within"
    )
    """It is a problem if the receiver gets no event for this long; `0s` means that none is due."""
    workers: Whole = Field(default=0, ge=0)
    """It is a problem if fewer workers run; 0 means that one is enough."""
    notify: NotifySettings | None = None

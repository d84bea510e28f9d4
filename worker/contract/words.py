"""The closed vocabularies: directions, lanes, reasons. One word per thing, everywhere.

A reason is lower case and made for machines: it stands in counts, dead letters and `status --json`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple, Self

NAME_PATTERN: Final = re.compile(r"[a-z0-9-]+")
"""The form of the names of destinations, triggers and jobs."""
AUDIENCE_ID_PATTERN: Final = re.compile(r"[0-9a-f]{32}")
"""The form of an audience's id at Lytics."""


class Direction(StrEnum):
    """The direction of an event: enter, exit or change."""

    ENTER = "enter"
    EXIT = "exit"
    CHANGE = "change"


DEATHS_IN_A_ROW: Final = 500
"""The number of deliveries that die of one cause in a row until their trigger is paused."""


class Effects(NamedTuple):
    """The effects of a reason, beside its count.

    Attributes:
        names_template: Its outcome names the template, though nothing may have been rendered.
        updates_ledger: The profile's ledger tells of it.
        is_reported: The response stream of the trigger gets a record of it.
        is_news: False if an event with this outcome says no more than an earlier or later event:
            `why` then ends with that one.
        in_a_row: The number of deaths of one cause in a row that pauses the trigger; 0 = none does.
    """

    names_template: bool = False
    updates_ledger: bool = False
    is_reported: bool = True
    is_news: bool = True
    in_a_row: int = DEATHS_IN_A_ROW


class Reason(StrEnum):
    """A reason for an outcome. A member is a row: its word, and its effects if it has any."""

    effects: Effects

    def __new__(cls, word: str, effects: Effects = Effects()) -> Self:  # noqa: B008 - it is frozen
        """Return the member for a row."""
        reason = str.__new__(cls, word)
        reason._value_, reason.effects = word, effects
        return reason


class Skip(Reason):
    """The reason for skipping a delivery."""

    DUPLICATE = "duplicate", Effects(is_reported=False, is_news=False)
    """The delivery's own trigger has delivered an event of this very time."""
    SUPERSEDED = "superseded", Effects(is_reported=False, is_news=False)
    """An event that was delivered supersedes this one."""
    ALREADY_THERE = "already_there", Effects(updates_ledger=True, is_reported=False)
    """A state event that tells what Insider already holds."""
    ASSERTED = "asserted", Effects(names_template=True)
    """An `assert` of the template failed: the template's author wants it skipped."""
    EMPTY = "empty", Effects(names_template=True)
    """Nothing was left to send after shaping."""
    TOO_OLD = "too_old"
    """Only an event older than the destination accepts was left to send."""
    SUPPRESSED = "suppressed"
    """The destination does not want this person: it said so when it refused the request."""


class Death(Reason):
    """The reason for a dead letter."""

    TEMPLATE_ERROR = "template_error", Effects(names_template=True)
    """The template failed for this event."""
    INVALID = "invalid"
    """The body is not valid for the path, or has no valid user."""
    REFUSED = "refused"
    """The destination refused this user for good."""
    FAILED = "failed"
    """The delivery failed five times alone in a request, while others of its trigger succeeded."""
    AMBIGUOUS = "ambiguous", Effects(in_a_row=0)
    """The request got no sure answer and `on_ambiguous` is `dead_letter`."""
    KILLED_WORKER = "killed_worker", Effects(names_template=True, in_a_row=5)
    """Rendering this delivery, alone, killed a throw-away process, or took too long."""
    TOO_LARGE = "too_large"
    """One user alone is larger than a request may be."""
    UNREADABLE = "unreadable"
    """The entry can't be decoded."""
    UNWANTED = "unwanted", Effects(in_a_row=0)
    """The trigger has another direction or other audiences now."""


class Refusal(StrEnum):
    """The reason for keeping an event in the quarantine."""

    UNREADABLE = "unreadable"
    """Not JSON, or not a payload."""
    RENDERED = "rendered"
    """The payload is a body that a template has rendered already."""
    NO_EVENTS = "no_events"
    """A payload without `segment_events`."""
    BAD_EVENT = "bad_event"
    """A segment event that is not an object, or whose `event` is none of enter, exit, change."""
    NO_IDENTITY = "no_identity"
    """The profile lacks the identity field."""
    BAD_TIME = "bad_time"
    """The event's time is missing or can't be read."""
    FUTURE_TIME = "future_time"
    """The event's time is more than five minutes ahead of Redis' clock."""
    OLDER_THAN_LEDGER = "older_than_ledger"
    """The event's time lies before what the ledger remembers; it may be older than an exit."""
    UNKNOWN_AUDIENCE = "unknown_audience"
    """An audience id whose slug is not known."""
    AUDIENCE_CONFLICT = "audience_conflict"
    """An audience id that appears with another slug than before."""
    NO_TRIGGER = "no_trigger"
    """No trigger wants it (counted as `unmatched`)."""
    TOO_LARGE = "too_large"
    """The payload is larger than an entry may be."""


LIVE: Final = "live"
BACKFILL: Final = "backfill"
JOB_PREFIX: Final = "job."


def lane_of_job(job: str) -> str:
    """Return the lane of a named job: a lane of its own, of the backfill kind."""
    return JOB_PREFIX + job


def job_of_lane(lane: str) -> str:
    """Return the job's name, or "" where the lane is no job's."""
    return lane.removeprefix(JOB_PREFIX) if lane.startswith(JOB_PREFIX) else ""


def kind_of_lane(lane: str) -> str:
    """Return `live` or `backfill`: the Celery queue and the gate's class of a lane."""
    return LIVE if lane == LIVE else BACKFILL

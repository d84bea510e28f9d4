"""The options of publishing, which all ways to publish share."""

from __future__ import annotations

from typing import Final, NamedTuple

from worker.contract.events import Event
from worker.contract.words import (
    BACKFILL,
    JOB_PREFIX,
    LIVE,
    NAME_PATTERN,
    job_of_lane,
    kind_of_lane,
    lane_of_job,
)
from worker.errors import UsageWrong


class PublishOptions(NamedTuple):
    """The way in which payloads or events are published.

    Attributes:
        lane: `live`, `backfill`, or a job's lane.
        job: Name of a job, which has a lane of its own.
        state: The payloads were made up by comparison; an event says it of itself.
        skip_hook: The destination should not start journeys. None: it should not if the lane is of
            the backfill kind, or the event says so. A trigger may overrule it.
        triggers: The only ones that get deliveries; none = all that want the events.
        again: Deliver also what was delivered before, or is already there; never what something
            newer has superseded.
    """

    lane: str = LIVE
    job: str = ""
    state: bool = False
    skip_hook: bool | None = None
    triggers: tuple[str, ...] = ()
    again: bool = False

    def resolved(self) -> PublishOptions:
        """Return the options with the lane that they name: the named one, or the job's own.

        Raises:
            UsageWrong: There is no such lane, or the job's name is none.
        """
        return self._replace(lane=_lane_for(self.lane, self.job), job="")

    def skips_hook(self, event: Event) -> bool:
        """Say whether the destination should not start journeys for this event."""
        return self.skips if self.skip_hook is not None else event.skip_hook or self.skips

    @property
    def skips(self) -> bool:
        """Say whether the destination should not start journeys, as far as the event is silent."""
        return kind_of_lane(self.lane) != LIVE if self.skip_hook is None else self.skip_hook


AS_USUAL: Final = PublishOptions()
"""Live events, for all triggers that want them."""


def _lane_for(lane: str, job: str) -> str:
    if job:
        return lane_of_job(_checked_job(job))
    if lane in (LIVE, BACKFILL):
        return lane
    if lane.startswith(JOB_PREFIX):
        return lane_of_job(_checked_job(job_of_lane(lane)))
    raise UsageWrong(f"There is no lane '{lane}': it is {LIVE} or {BACKFILL}; a job has its own.")


def _checked_job(job: str) -> str:
    if NAME_PATTERN.fullmatch(job):
        return job
    raise UsageWrong(f"A job's name has only a to z, 0 to 9 and -; '{job}' has others.")

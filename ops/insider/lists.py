"""The attribute in which a trigger keeps a list of audiences, found by rendering a sample."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from worker.checks.audiences import list_of as list_in
from worker.checks.bodies import users_of
from worker.checks.triggers import rehearse_sample
from worker.contract.settings import Settings, Trigger


def list_of(settings: Settings, trigger: Trigger) -> str:
    """Return the attribute in which a trigger keeps a list of audiences; "" = it keeps none.

    Where the sample does not render, its direction and path decide.
    """
    rehearsed = rehearse_sample(settings, trigger, datetime.now(UTC))
    return list_in(trigger, rehearsed and rehearsed.body)


def sample_users(settings: Settings, trigger: Trigger) -> list[dict[str, Any]] | None:
    """Return the users that a trigger would send of its sample; None if it does not render.

    Where shaping leaves nothing to send it is the users as rendered.
    """
    rehearsed = rehearse_sample(settings, trigger, datetime.now(UTC))
    if rehearsed is None or rehearsed.body is None:
        return None
    return list(rehearsed.shaped.users) if rehearsed.shaped else users_of(rehearsed.body)

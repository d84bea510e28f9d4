"""Which triggers keep a list of audiences, and in which attribute: seen by rendering a sample."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from worker.checks.audiences import list_of as list_in
from worker.checks.bodies import users_of
from worker.checks.triggers import sample_body
from worker.contract.settings import Settings, Trigger


def list_of(settings: Settings, trigger: Trigger) -> str:
    """Return the attribute that a trigger's deliveries keep a list of audiences in; "" = none.

    Where the sample does not render, its direction and path decide.
    """
    return list_in(trigger, sample_body(settings, trigger, datetime.now(UTC)))


def sample_users(settings: Settings, trigger: Trigger) -> list[dict[str, Any]] | None:
    """Return the users that a trigger's template makes of its sample; None if it does not."""
    body = sample_body(settings, trigger, datetime.now(UTC))
    return None if body is None else users_of(body)

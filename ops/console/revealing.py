"""Reveals of personal data: only for those who may, and each is in the audit before it is shown."""

from __future__ import annotations

import secrets
from typing import Final

from segrelay.ops.console.app import Asked
from segrelay.ops.console.look import Look
from segrelay.ops.state.acts import actor_named, masked
from segrelay.worker.contract.redis.acts import Act, note_act
from segrelay.worker.errors import UsageWrong

REVEALED: Final = "reveal"
_LONGEST: Final = 500


def note_reveal(look: Look, asked: Asked, subject: str) -> None:
    """Record that a person sees personal data.

    Raises:
        UsageWrong: They may not, or say no reason.
        RedisUnavailable: It could not be recorded, so nothing is shown.
    """
    if not asked.person.reveals:
        raise UsageWrong("Personal data is shown to the role revealer only.")
    reason = asked.given("reason").strip()
    if not reason:
        raise UsageWrong("Give a reason: the audit keeps it.")
    act = Act(
        REVEALED,
        actor_named(asked.person.name),
        subject,
        reason=masked(reason)[:_LONGEST],
        key=secrets.token_hex(8),
    )
    note_act(look.client, act)

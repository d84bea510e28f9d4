"""`Meaning`: the events that a trigger delivers, by which orphaned deliveries are recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import orjson

from worker.contract.events import Header
from worker.contract.settings import ALL_AUDIENCES, Trigger
from worker.contract.words import Direction

_DIGEST_CHARACTERS: Final = 12


@dataclass(frozen=True)
class Meaning:
    """The direction and the audiences of a trigger.

    An entry that its trigger does not want is *orphaned*: it stays where it is until a person moves
    or discards it, or the trigger wants it again.

    Args:
        audiences: Slugs, also those that stand for the ids that the trigger names; None = all.
    """

    trigger: str
    on: Direction
    audiences: frozenset[str] | None

    @classmethod
    def of(
        cls, trigger: Trigger, slugs: Mapping[str, str], renamed: Mapping[str, str] | None = None
    ) -> Meaning:
        """Return the meaning of a trigger.

        Args:
            trigger: As configured.
            slugs: The slugs that are known, by the ids of audiences.
            renamed: The new slugs of renamed audiences, by the former ones: whoever wants the new
                one gets what still waits under the former.
        """
        if ALL_AUDIENCES in trigger.audiences:
            return cls(trigger.name, Direction(trigger.on), None)
        known = {slugs[name] for name in trigger.audiences if name in slugs}
        wanted = {*trigger.audiences, *known}
        former = {old for old, new in (renamed or {}).items() if new in wanted}
        return cls(trigger.name, Direction(trigger.on), frozenset(wanted | former))

    def wants(self, header: Header) -> bool:
        """Say whether the trigger delivers an event."""
        return header.direction is self.on and (
            self.audiences is None or header.audience in self.audiences
        )

    @cached_property
    def digest(self) -> str:
        """Return a digest of the meaning."""
        audiences = None if self.audiences is None else sorted(self.audiences)
        text = orjson.dumps([self.on.value, audiences])
        return hashlib.sha256(text).hexdigest()[:_DIGEST_CHARACTERS]

    @property
    def label(self) -> str:
        """Return `trigger|digest`, by which scripts know the meaning."""
        return f"{self.trigger}|{self.digest}"


def named_audiences(triggers: Iterable[Trigger]) -> list[str]:
    """Return the audiences that triggers name: slugs, and ids whose slugs have to be looked up."""
    names = {name for trigger in triggers for name in trigger.audiences} - {ALL_AUDIENCES}
    return sorted(names)

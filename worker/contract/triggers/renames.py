"""Renamed audiences: events under the former slug count for the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from worker.contract.events import Header
from worker.contract.settings import Trigger
from worker.contract.words import Direction


@dataclass(frozen=True, slots=True)
class Renames:
    """The renamed audiences, with the triggers of one destination that they concern.

    Args:
        slugs: The new slug by the former one.
        wanting: Names of the triggers by slug and direction, for former slugs and new ones.
    """

    slugs: Mapping[str, str] = field(default_factory=dict)
    wanting: Mapping[tuple[str, Direction], Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, slugs: Mapping[str, str], triggers: Sequence[Trigger], ids: Mapping[str, str]
    ) -> Self:
        """Return the renames as they concern the triggers of a destination."""

        def wants(trigger: Trigger, slug: str) -> bool:
            return trigger.wants(slug) or any(ids.get(name) == slug for name in trigger.audiences)

        wanting = {
            (slug, direction): tuple(
                each.name for each in triggers if each.on == direction and wants(each, slug)
            )
            for slug in {*slugs, *slugs.values()}
            for direction in Direction
        }
        return cls(slugs, wanting)

    def concern(self, header: Header) -> bool:
        """Say whether an event is carried over to the new slug.

        A repair is not: it puts right what was delivered under the former slug itself. Where no
        trigger wants the event under its new slug, it stays as it is.
        """
        slug = self.slugs.get(header.audience) if self.slugs else None
        if slug is None or header.former or header.repair:
            return False
        return bool(self.wanting.get((slug, header.direction)))

    def undid(self, header: Header) -> bool:
        """Say whether an event was part of a renaming of its audience that was undone later."""
        return header.former and bool(self.slugs) and header.audience not in self.slugs


NO_RENAMES: Final = Renames()

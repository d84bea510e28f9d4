"""Checks of `stable`, with which a destination knows people whose identity changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from worker.contract.problems import Problem, place_of
from worker.contract.settings.sections import Destination, Trigger

RENAMED_KINDS: Final = ("email", "phone_number", "uuid")
"""Identifiers that Insider renames and that a profile's field of the same name holds."""


def problems_of_stable_id(
    destination: Destination, triggers: Mapping[str, Trigger], identity: str
) -> Iterator[Problem]:
    """Yield why people of a destination can't be renamed by themselves."""
    field = destination.stable
    if not field:
        return
    place = place_of(("destinations", destination.name, "stable"))
    if destination.api != "insider":
        yield Problem(
            place, 'is for destinations with api = "insider" only: others can\'t rename anybody'
        )
        return
    if field == identity:
        yield Problem(
            place,
            f"is {field}, like delivery.identity: it changes together with the identity",
            "name a field that stays the same for a person, such as _uid",
        )
    elif identity not in RENAMED_KINDS:
        yield Problem(
            place,
            f"needs an identity that Insider can rename, and delivery.identity is {identity}",
            f"with {', '.join(RENAMED_KINDS)} as the identity it works; else use"
            " `segrelay person rename --identifier`",
        )
    for trigger in triggers.values():
        fields = trigger.export_fields
        if trigger.destination == destination.name and fields and field not in fields:
            yield Problem(
                place_of(("triggers", trigger.name, "export_fields")),
                f"{field}, by which {destination.name} knows people, is not kept",
                f'add "{field}"',
            )

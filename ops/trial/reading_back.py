"""What a destination says of a person to whom something was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ops.insider.reader import CUSTOM, InsiderReader
from ops.trial.event import who_of
from worker.contract.settings import AUDIENCE_ATTRIBUTE, Settings, Trigger
from worker.destinations.api import Shaped

AS_SENT: Final = "as sent"
DIFFERS: Final = "differs"
NOT_THERE: Final = "not there"


def attributes_of(shaped: Shaped, trigger: Trigger) -> list[str]:
    """Return the attributes that a body writes, as Insider names them when they are read."""
    names = {CUSTOM + str(trigger.settings[AUDIENCE_ATTRIBUTE])}
    return sorted(names.union(*(dict(_sent(user)) for user in shaped.users)))


def read_back(shaped: Shaped, trigger: Trigger, settings: Settings) -> dict[str, Any] | None:
    """Return what Insider holds of the person now; None where it knows nobody such.

    Raises:
        InsiderUnreadable, InsiderRefuses: It can't be read.
    """
    destination = settings.destinations[trigger.destination]
    with InsiderReader(settings, destination) as reader:
        return reader.profile(who_of(shaped), attributes_of(shaped, trigger))


def compared(shaped: Shaped, found: Mapping[str, Any] | None) -> dict[str, str]:
    """Say of each attribute that was sent whether it is there."""
    sent = {name: value for user in shaped.users for name, value in _sent(user)}
    return {name: _verdict(value, (found or {}).get(name)) for name, value in sorted(sent.items())}


def _sent(user: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    attributes = user.get("attributes", {})
    for name, value in attributes.items():
        if name != "custom":
            yield name, value
    for name, value in attributes.get("custom", {}).items():
        yield CUSTOM + name, value


def _verdict(sent: Any, found: Any) -> str:
    if found is None:
        return NOT_THERE
    if isinstance(sent, list):
        held = found if isinstance(found, list) else [found]
        return AS_SENT if all(each in held for each in sent) else DIFFERS
    return AS_SENT if found == sent or str(found) == str(sent) else DIFFERS

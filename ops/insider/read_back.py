"""Reading a person back from Insider, to compare what it holds with what was sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ops.insider.reader import CUSTOM, InsiderReader, ProfileReader
from worker.checks.audiences import list_of as list_in
from worker.checks.bodies import users_of
from worker.checks.triggers import rehearse_sample
from worker.contract.settings import AUDIENCE_ATTRIBUTE, Settings, Trigger
from worker.destinations.api import Shaped
from worker.errors import SegrelayError

AS_SENT: Final = "as sent"
_DIFFERS: Final = "differs"
_NOT_THERE: Final = "not there"


@dataclass(frozen=True, slots=True)
class ReadBack:
    """A person as Insider holds them.

    Args:
        attributes: By the names under which they are read; None = Insider does not know the
            person, or it could not be read.
        problem: The reason why it could not be read; "" = it was.
    """

    attributes: Mapping[str, Any] | None
    problem: str = ""

    def lists(self, audience: str, attribute: str) -> bool:
        """Say whether the list of audiences in a custom attribute names this audience."""
        held = (self.attributes or {}).get(CUSTOM + attribute)
        return audience in held if isinstance(held, list) else held == audience

    def verdicts(self, shaped: Shaped) -> dict[str, str]:
        """Return a verdict for each attribute that was sent: as sent, differs, or not there."""
        held = self.attributes or {}
        return {
            name: _verdict(value, held.get(name)) for name, value in sorted(_sent(shaped).items())
        }


def read_lists(
    reader: ProfileReader, who: Mapping[str, Any], attributes: Iterable[str]
) -> ReadBack:
    """Read the custom attributes of a person that keep lists of audiences."""
    return ReadBack(reader.profile(who, sorted({CUSTOM + name for name in attributes})))


def read_sent(shaped: Shaped, trigger: Trigger, settings: Settings) -> ReadBack:
    """Read the attributes that a delivery of a trigger writes."""
    destination = settings.destinations[trigger.destination]
    if destination.api != "insider":
        return ReadBack(None, "Only Insider can be read back.")
    user = shaped.users[0] if shaped.users else {}
    who: dict[str, Any] = {key: user[key] for key in ("identifiers", "insider_id") if key in user}
    names = {CUSTOM + str(trigger.settings[AUDIENCE_ATTRIBUTE]), *_sent(shaped)}
    try:
        with InsiderReader(settings, destination) as reader:
            return ReadBack(reader.profile(who, sorted(names)))
    except SegrelayError as error:
        return ReadBack(None, error.message)


def _sent(shaped: Shaped) -> dict[str, Any]:
    """Return the attributes of a body by the names under which Insider returns them."""
    return dict(pair for user in shaped.users for pair in _named(user.get("attributes", {})))


def _named(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((name, value) for name, value in attributes.items() if name != "custom")
    yield from ((CUSTOM + name, value) for name, value in attributes.get("custom", {}).items())


def _verdict(sent: Any, found: Any) -> str:
    if found is None:
        return _NOT_THERE
    if isinstance(sent, list):
        held = found if isinstance(found, list) else [found]
        return AS_SENT if all(each in held for each in sent) else _DIFFERS
    return AS_SENT if found == sent or str(found) == str(sent) else _DIFFERS


def list_of(settings: Settings, trigger: Trigger) -> str:
    """Return the attribute in which a trigger keeps a list of audiences; "" = it keeps none.

    Where the sample does not render, its direction and path decide.
    """
    rehearsed = rehearse_sample(settings, trigger, datetime.now(UTC))
    return list_in(trigger, rehearsed and rehearsed.body)


def sample_users(settings: Settings, trigger: Trigger) -> list[dict[str, Any]] | None:
    """Return the users that a trigger would send for its sample; None if it can't be rendered.

    Where shaping leaves nothing to send it is the users as rendered.
    """
    rehearsed = rehearse_sample(settings, trigger, datetime.now(UTC))
    if rehearsed is None or rehearsed.body is None:
        return None
    return list(rehearsed.shaped.users) if rehearsed.shaped else users_of(rehearsed.body)

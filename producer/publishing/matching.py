"""Matching: the triggers that want an event, and the fields that each of them gets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from producer.events.identity import identity_field
from producer.events.integers import dumps_exactly
from producer.events.payloads import SEGMENT_EVENTS
from worker.contract.events import Event, pack_profile
from worker.contract.settings import ALL_AUDIENCES, Settings, Trigger
from worker.contract.words import Refusal
from worker.errors import PayloadRefused

LARGEST_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""The largest JSON text of a profile, in bytes: a body for Insider has at most 5,000,000."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A trigger as publishing sees it."""

    trigger: str
    destination: str
    export_fields: tuple[str, ...]
    skip_hook: bool | None


class Recipients:
    """The triggers, found by audience and direction.

    Args:
        slug_of: From an audience's id to its slug, "" if it is not known; triggers may name ids.
    """

    def __init__(self, triggers: Iterable[Trigger], slug_of: Callable[[str], str]) -> None:
        self._triggers = tuple(triggers)
        self._recipients = tuple(map(_recipient, self._triggers))
        self._slug_of = slug_of
        self._found: dict[tuple[str, str], tuple[Recipient, ...]] = {}
        self._named: dict[tuple[str, str], list[int]] = {}

    def forget(self) -> None:
        """Forget all recipients found so far, since ids may stand for other slugs now."""
        self._found.clear()
        self._named.clear()

    def of(self, event: Event) -> tuple[Recipient, ...]:
        """Return the recipients of an event; none if no trigger wants it."""
        key = (event.audience, event.direction.value)
        recipients = self._found.get(key)
        if recipients is None:
            recipients = self._found[key] = self._look(*key)
        return recipients

    def _look(self, slug: str, direction: str) -> tuple[Recipient, ...]:
        if not self._named:
            self._name()
        wanting = {
            *self._named.get((slug, direction), ()),
            *self._named.get((ALL_AUDIENCES, direction), ()),
        }
        return tuple(self._recipients[number] for number in sorted(wanting))

    def _name(self) -> None:
        """Index the triggers by the audiences that they name; an id also stands for its slug."""
        for number, trigger in enumerate(self._triggers):
            for name in trigger.audiences:
                for slug in {name, self._slug_of(name)}:
                    self._named.setdefault((slug, trigger.on), []).append(number)


def _recipient(trigger: Trigger) -> Recipient:
    return Recipient(
        trigger.name, trigger.destination, tuple(trigger.export_fields), trigger.skip_hook
    )


def routing_digest(settings: Settings) -> str:
    """Return a digest that changes when the same payloads would become other deliveries."""
    recipients = [
        [trigger.name, trigger.destination, trigger.audiences, trigger.on, trigger.export_fields]
        for _, trigger in sorted(settings.triggers.items())
    ]
    text = orjson.dumps(
        [settings.delivery.identity, settings.redis.numbering.counts[0], recipients]
    )
    return hashlib.sha256(text).hexdigest()[:12]


def export(
    profile: dict[str, Any], fields: tuple[str, ...], identity: str
) -> tuple[bytes, frozenset[str]]:
    """Return the packed profile of a delivery: all of it, or only these fields.

    The second result names the fields whose integers above 2^53 are carried as text.

    Args:
        profile: With its one segment event.
        fields: Beside the identity and `segment_events`, which are always carried; () = all.
        identity: The configured identity field.

    Raises:
        PayloadRefused: `unreadable` (nested too deep, or no JSON) or `too_large`.
    """
    if fields:
        wanted = {*fields, identity_field(profile, identity), SEGMENT_EVENTS}
        profile = {field: value for field, value in profile.items() if field in wanted}
    try:
        text, as_text = dumps_exactly(profile)
    except (TypeError, RecursionError) as error:
        raise PayloadRefused(Refusal.UNREADABLE, _why_no_json(error)) from error
    if len(text) > LARGEST_PROFILE_BYTES:
        raise PayloadRefused(
            Refusal.TOO_LARGE,
            f"The profile has {len(text)} bytes, at most {LARGEST_PROFILE_BYTES} can be carried; "
            "export_fields make it smaller.",
        )
    return pack_profile(text), as_text


def _why_no_json(error: Exception) -> str:
    if isinstance(error, RecursionError) or "Recursion" in str(error):
        return "The profile is nested deeper than 254 levels."
    return "The profile holds something that JSON has no form for."

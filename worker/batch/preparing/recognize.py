"""Recognizes people by their stable ids, to find changed identities and late events.

It is done with what the holder of the lease reads, before anything is decided: the events of
somebody whose identity changes wait, and those under a former identity go to the present one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from worker.batch.partition import Delivery
from worker.contract.events import decode_profile
from worker.contract.people.forwards import Forward, Moving, key_of
from worker.contract.people.stable import WAITS, Recognizer, Sighting, stable_digest, stable_value
from worker.contract.words import Direction
from worker.errors import PayloadRefused


class Recognized:
    """The recognizer's answers about the people of a batch.

    Args:
        stables: The digest of the stable id by a delivery's place.
        answers: By stable id and identity, as the recognizer gave them.
    """

    def __init__(
        self, stables: Mapping[str, bytes], answers: Mapping[tuple[bytes, bytes], str]
    ) -> None:
        self._stables = stables
        self._answers = answers

    def stable_of(self, delivery: Delivery) -> str:
        """Return the digest (hex) of a delivery's stable id; "" = it has none."""
        return self._stables.get(delivery.place, b"").hex()

    def waits(self, delivery: Delivery) -> bool:
        """Say whether a delivery waits until somebody is renamed."""
        return self._answer(delivery) == WAITS

    def key_for(self, delivery: Delivery) -> str:
        """Return the key of the profile to which a delivery belongs; "" = it stays."""
        answer = self._answer(delivery)
        return "" if answer == WAITS else answer

    @property
    def is_quiet(self) -> bool:
        """Say whether no delivery of the batch has to wait or to be handed on."""
        return not any(self._answers.values())

    def _answer(self, delivery: Delivery) -> str:
        stable = self._stables.get(delivery.place)
        return self._answers.get((stable, delivery.header.digest), "") if stable else ""


NOTHING: Final = Recognized({}, {})


async def recognize(
    deliveries: Sequence[Delivery], forwards: Mapping[bytes, Forward], recognizer: Recognizer | None
) -> Recognized:
    """Ask the recognizer about the people of a batch, except those who are just being renamed."""
    if recognizer is None:
        return NOTHING
    stables: dict[str, bytes] = {}
    newest: dict[tuple[bytes, bytes], tuple[Sighting, str]] = {}
    for delivery in deliveries:
        forward = forwards.get(delivery.header.digest)
        if forward and forward.moving is not Moving.DONE:
            continue
        sighting = _sighting(delivery, forward, recognizer)
        if sighting is None:
            continue
        stables[delivery.place] = sighting.stable
        known = newest.get((sighting.stable, sighting.identity))
        if known is None or known[0].time_us < sighting.time_us:
            newest[sighting.stable, sighting.identity] = (sighting, delivery.trigger)
    if not newest:
        return NOTHING
    sightings = [sighting for sighting, _ in newest.values()]
    answers = await recognizer.see(sightings, [trigger for _, trigger in newest.values()])
    return Recognized(stables, dict(zip(newest, answers, strict=True)))


def _sighting(
    delivery: Delivery, forward: Forward | None, recognizer: Recognizer
) -> Sighting | None:
    """Return what a delivery tells of a stable id; None = nothing, or it can't be read."""
    header = delivery.header
    if header.is_placeholder:
        return None
    try:
        profile = orjson.loads(decode_profile(delivery.profile))
        value = stable_value(profile, recognizer.field)
        key = key_of(profile, recognizer.identity, header.digest)
    except (PayloadRefused, ValueError, AttributeError):
        return None
    if not value or key is None or "\n" in key:
        return None
    stable = stable_digest(recognizer.field, value)
    applies = forward is not None and forward.stable in ("", stable.hex())
    return Sighting(
        stable,
        header.digest,
        key,
        header.time_us,
        lasts=header.direction is Direction.ENTER,
        forward=forward.to if forward and applies else "",
        by_person=bool(forward and applies and not forward.stable),
    )

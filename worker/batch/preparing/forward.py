"""Hands the waiting events of renamed people on to their new identity.

Whoever holds the lease does it, with what he reads: so it does not matter when the events were
accepted, or by which producer. They are added where the new identity belongs before they are taken
out here: a process that dies in between leaves an event twice, and the ledger knows the second one
as a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from worker.batch.partition import Delivery, Partition, Replacement
from worker.batch.preparing.read import StreamReader
from worker.batch.state import State
from worker.contract.keys import digest_of, split_stream_name
from worker.contract.people.forwards import Forward, Moving, profile_about
from worker.contract.redis.accept import NewDelivery
from worker.errors import PayloadRefused

HELD_MS: Final = 2_000
"""Milliseconds after which the events of somebody who is being renamed are looked at again."""


async def hand_on(deliveries: Sequence[Delivery], partition: Partition, state: State) -> bool:
    """Hand on what belongs to people who were renamed, and hold back who is being renamed.

    Returns:
        Whether the batch has to be read again.
    """
    forwards = await forwards_of(deliveries, partition, state)
    moving = {digest for digest, each in forwards.items() if each.moving is not Moving.DONE}
    for digest in moving:
        state.hold_back(digest, HELD_MS)
    gone: list[Replacement] = []
    arriving: dict[int, list[NewDelivery]] = {}
    for delivery in deliveries:
        forward = forwards.get(delivery.header.digest)
        new = _handed_on(delivery, forward) if forward else None
        if forward and new:
            gone.append(Replacement(delivery, ()))
            arriving.setdefault(forward.partition, []).append(new)
    for number, some in arriving.items():
        await partition.accept_in(number, some)
    if gone:
        await partition.carry_over(gone)
    return bool(moving or gone)


async def forwards_of(
    deliveries: Sequence[Delivery], partition: StreamReader, state: State
) -> Mapping[bytes, Forward]:
    """Return the records of those of these people who are being renamed or were."""
    if not state.has_forwards or not deliveries:
        return {}
    digests = list(dict.fromkeys(delivery.header.digest for delivery in deliveries))
    texts = await partition.forwards(digests)
    return {
        digest: Forward.loads(text)
        for digest, text in zip(digests, texts, strict=True)
        if text is not None
    }


def _handed_on(delivery: Delivery, forward: Forward) -> NewDelivery | None:
    """Return the delivery under the new identity; None if it stays, or can't be read."""
    if forward.moving is not Moving.DONE:
        return None
    try:
        profile = profile_about(delivery.profile, forward.to)
    except (PayloadRefused, ValueError, AttributeError, TypeError):
        return None
    lane, trigger = split_stream_name(delivery.stream)
    header = delivery.header._replace(digest=digest_of(forward.to))
    return NewDelivery(lane, trigger, header, profile)

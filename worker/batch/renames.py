"""Events that wait under a former identity of a renamed person.

Whoever holds the lease moves them, with what it reads: so it does not matter when the events were
accepted, or by which producer, nor whether they were dead or orphaned for a while. They are added
where the new identity belongs before they are taken out here: a process that dies in between leaves
an event twice, and the ledger knows the second one as a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.judge import Recognized, recognize
from segrelay.worker.batch.partition import Partition, Replacement
from segrelay.worker.batch.read import Reading, StreamReader, read_batch
from segrelay.worker.batch.state import State
from segrelay.worker.contract.keys import digest_of, partition_of, split_stream_name
from segrelay.worker.contract.people import Forward, Moving, profile_about
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.errors import PayloadRefused

HELD_MS: Final = 2_000
"""Milliseconds after which the events of somebody who is being renamed are looked at again."""


async def hand_on(deliveries: Sequence[Delivery], partition: Partition, state: State) -> bool:
    """Hand on the events of people who were renamed; hold back those of people being renamed.

    Returns:
        Whether the batch has to be read again.
    """
    forwards = await forwards_of(deliveries, partition, state)
    recognized = await recognize(deliveries, forwards, state.recognizer)
    if not forwards and recognized.is_quiet:
        return False
    moving = {digest for digest, each in forwards.items() if each.moving is not Moving.DONE}
    moving |= {each.header.digest for each in deliveries if recognized.waits(each)}
    for digest in moving:
        state.hold_back(digest, HELD_MS)
    gone: list[Replacement] = []
    arriving: dict[int, list[NewDelivery]] = {}
    for delivery in deliveries:
        digest = delivery.header.digest
        key, number = _belongs_to(delivery, forwards.get(digest), recognized, state)
        new = _handed_on(delivery, key) if key and digest not in moving else None
        if new:
            gone.append(Replacement(delivery, ()))
            arriving.setdefault(number, []).append(new)
    for number, some in arriving.items():
        await partition.accept_in(number, some)
    if gone:
        await partition.carry_over(gone)
    return bool(moving or gone)


async def is_concerned(
    deliveries: Sequence[Delivery], partition: StreamReader, state: State
) -> bool:
    """Say whether any of these deliveries may have to be handed on or held back."""
    if await forwards_of(deliveries, partition, state):
        return True
    return not (await recognize(deliveries, {}, state.recognizer)).is_quiet


async def forwards_of(
    deliveries: Sequence[Delivery], partition: StreamReader, state: State
) -> Mapping[bytes, Forward]:
    """Return the records of the deliveries' people who were renamed, or are being renamed."""
    if not state.has_forwards or not deliveries:
        return {}
    digests = list(dict.fromkeys(delivery.header.digest for delivery in deliveries))
    texts = await partition.forwards(digests)
    return {
        digest: Forward.loads(text)
        for digest, text in zip(digests, texts, strict=True)
        if text is not None
    }


def _belongs_to(
    delivery: Delivery, forward: Forward | None, recognized: Recognized, state: State
) -> tuple[str, int]:
    """Return key and partition of the identity that a delivery goes to; "" = it stays.

    Where a stable id has moved, events with another one stay: the address is another person's now.
    """
    key = recognized.key_for(delivery)
    if key and state.recognizer:
        return key, partition_of(key, state.recognizer.partitions)
    if forward is None or forward.moving is not Moving.DONE:
        return "", 0
    stable = recognized.stable_of(delivery)
    is_anothers = bool(stable and forward.stable) and stable != forward.stable
    return ("", 0) if is_anothers else (forward.to, forward.partition)


def _handed_on(delivery: Delivery, key: str) -> NewDelivery | None:
    """Return the delivery under another identity; None if it can't be read."""
    try:
        profile = profile_about(delivery.profile, key)
    except (PayloadRefused, ValueError, AttributeError, TypeError):
        return None
    lane, trigger = split_stream_name(delivery.stream)
    header = delivery.header._replace(digest=digest_of(key))
    return NewDelivery(lane, trigger, header, profile)


async def read_and_carry(
    partition: Partition, state: State, streams: Sequence[str], *, entries: int
) -> Reading:
    """Read a batch, moving events of renamed people until it holds none of them.

    Raises:
        LeaseLost: What was carried over until then stays so.
    """
    while True:
        reading = await read_batch(partition, state, streams, entries=entries)
        if not await hand_on(reading.deliveries, partition, state):
            return reading

"""Carries the waiting events of renamed audiences over to their new slugs.

Whoever holds the lease does it, with what he reads: so it does not matter when the events were
accepted, or by which producer, nor whether they were dead or orphaned for a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from worker.batch.batch import Numbers
from worker.batch.partition import Delivery, Partition, Replacement
from worker.batch.preparing.forward import hand_on
from worker.batch.preparing.read import read_batch
from worker.batch.state import State
from worker.contract.events import (
    Header,
    decode_profile,
    pack_profile,
    with_audience,
    with_direction,
)
from worker.contract.keys import split_stream_name
from worker.contract.ledger import Record, unpack_all
from worker.contract.redis.accept import NewDelivery
from worker.contract.triggers.renames import Renames
from worker.contract.words import Direction
from worker.errors import PayloadRefused


async def read_and_carry(
    partition: Partition, state: State, streams: Sequence[str], numbers: Numbers, *, entries: int
) -> Sequence[Delivery]:
    """Read a batch, moving events of renamed audiences and people until it holds none of them.

    Raises:
        LeaseLost: What was carried over until then stays so.
    """
    while True:
        deliveries = await read_batch(partition, state, streams, entries=entries)
        if await hand_on(deliveries, partition, state):
            continue
        if not await _carry_over(deliveries, state.renames, partition, numbers):
            return deliveries


async def _carry_over(
    deliveries: Sequence[Delivery], renames: Renames, partition: Partition, numbers: Numbers
) -> bool:
    """Carry over the deliveries about renamed audiences; returns whether there were any."""
    concerned = [delivery for delivery in deliveries if renames.concern(delivery.header)]
    undone = [Replacement(each, ()) for each in deliveries if renames.undid(each.header)]
    if not (concerned or undone):
        return False
    await numbers.learn({delivery.header.audience for delivery in concerned}, ())
    digests = list(dict.fromkeys(delivery.header.digest for delivery in concerned))
    texts = await partition.ledgers(digests)
    records, _ = unpack_all(dict(zip(digests, texts, strict=True)))
    replacements = [
        Replacement(delivery, tuple(new))
        for delivery in concerned
        if (new := _replaced(delivery, renames, records, numbers))
    ]
    replacements += undone
    if replacements:
        await partition.carry_over(replacements)
    return bool(replacements)


def _replaced(
    delivery: Delivery, renames: Renames, records: Mapping[bytes, Record], numbers: Numbers
) -> list[NewDelivery]:
    """Return the deliveries that replace one about a renamed audience; [] = it stays.

    An entrance stays under the former slug if the ledger knows an exit there that beats it. What
    leaves the audience has to leave the former slug too, if the person still has it at the
    destination. So does what may have entered it by a request without a sure answer. A delivery
    whose profile can't be read stays.
    """
    header, former = delivery.header, delivery.header.audience
    record = records.get(header.digest, Record())
    if header.direction is Direction.ENTER and _has_left(record, header, numbers.audience(former)):
        return []
    slug = renames.slugs[former]
    lane, _ = split_stream_name(delivery.stream)
    try:
        profile = orjson.loads(decode_profile(delivery.profile))
        told = pack_profile(orjson.dumps(with_audience(profile, slug)))
        left = pack_profile(orjson.dumps(with_direction(profile, Direction.EXIT)))
    except (PayloadRefused, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return []
    new = header._replace(audience=slug)
    replaced = [
        NewDelivery(lane, trigger, new, told) for trigger in renames.wanting[slug, header.direction]
    ]
    if header.direction is Direction.EXIT:
        own = header._replace(former=True)
        replaced.append(NewDelivery(lane, delivery.trigger, own, delivery.profile))
    elif _was_tried(record, header, numbers.audience(former)):
        gone = header._replace(direction=Direction.EXIT, former=True, state=True, skip_hook=True)
        replaced += [
            NewDelivery(lane, trigger, gone, left)
            for trigger in renames.wanting.get((former, Direction.EXIT), ())
        ]
    return replaced


def _has_left(record: Record, header: Header, audience: int) -> bool:
    return any(
        item.delivered_us >= header.time_us and item.direction is Direction.EXIT
        for _, item in record.about(audience)
    )


def _was_tried(record: Record, header: Header, audience: int) -> bool:
    return any(
        item.tried_us >= header.time_us and item.direction is header.direction
        for _, item in record.about(audience)
    )

"""Publishes repairs after a request whose lease was taken while it was under way.

Something newer may have been delivered meanwhile, and its own, older request may have taken
effect after it. Then the newest direction is published once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Intent, Partition
from segrelay.worker.contract.events import decode_profile, pack_profile
from segrelay.worker.contract.ledger import Item, Record, is_newer, unpack_all
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.words import LIVE, Direction
from segrelay.worker.core.supersede import LedgerEvent, supersedes

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def repair(
    partition: Partition,
    deliveries: Sequence[Delivery],
    *,
    names: dict[int, str],
    in_doubt: Intent | None,
    late_seconds: float,
) -> int:
    """Publish repairs where something newer of the other direction was delivered meanwhile.

    Args:
        partition: Its lease is somebody else's.
        deliveries: The deliveries that the request carried.
        names: Triggers of this destination by their number in the ledger.
        in_doubt: True if the request got no sure answer: nothing of its profiles, the repairs
            included, may be sent before it can't take effect any more.
        late_seconds: The length of that time.

    Returns:
        How many repairs were published.
    """
    if in_doubt:
        await partition.hold_back(in_doubt, late_seconds)
    texts = await partition.peek([delivery.digest for delivery in deliveries])
    digests = [delivery.digest for delivery in deliveries]
    records, _ = unpack_all(dict(zip(digests, texts, strict=True)))
    repairs = [
        new
        for delivery in deliveries
        if delivery.digest in records
        for new in _repairs(delivery, records[delivery.digest], names)
    ]
    if repairs:
        await partition.accept(repairs)
    return len(repairs)


def _repairs(delivery: Delivery, record: Record, names: dict[int, str]) -> list[NewDelivery]:
    newest = _newest(delivery, record)
    if newest is None or newest.direction is delivery.event.direction:
        return []
    return [
        _repair(delivery, names[trigger], item)
        for trigger, item in record.about(delivery.event.audience)
        if item.direction is newest.direction and item.delivered_us and trigger in names
    ]


def _repair(delivery: Delivery, trigger: str, item: Item) -> NewDelivery:
    """Return a trigger's last delivery as a repair; its own time supersedes nothing newer."""
    header = delivery.header._replace(
        direction=item.direction,
        time_us=item.delivered_us,
        state=False,
        skip_hook=True,
        repair=True,
    )
    return NewDelivery(LIVE, trigger, header, pack_profile(_turned(delivery, item)))


def _newest(delivery: Delivery, record: Record) -> Item | None:
    """Return the newest item that supersedes what the request carried."""
    best: Item | None = None
    for trigger, item in record.about(delivery.event.audience):
        event = LedgerEvent(item.delivered_us, item.direction, trigger)
        if not item.delivered_us or not supersedes(event, delivery.event):
            continue
        if best is None or is_newer(
            item.delivered_us, item.direction, best.delivered_us, best.direction
        ):
            best = item
    return best


def _turned(delivery: Delivery, newest: Item) -> bytes:
    """Return the profile with direction and time of the newest event in its one segment event."""
    profile: dict[str, Any] = orjson.loads(decode_profile(delivery.profile))
    old = (profile.get("segment_events") or [{}])[0]
    event = newest.direction.value
    at = (_EPOCH + timedelta(microseconds=newest.delivered_us)).isoformat(timespec="microseconds")
    others = {key: value for key, value in old.items() if key not in {d.value for d in Direction}}
    turned = {**others, "event": event, event: at.replace("+00:00", "Z")}
    return orjson.dumps({**profile, "segment_events": [turned]})

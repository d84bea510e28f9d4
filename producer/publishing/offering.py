"""Offering accepted events to those who watch what goes through; see `worker.contract.taps`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segrelay.producer.publishing.published import LaidOut, Published
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.masking import masked_profile
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.taps import offer_records
from segrelay.worker.contract.taps import TapKind, Taps, about, record_of, shown_content
from segrelay.worker.errors import RedisUnavailable
from segrelay.worker.logs import harmless


@dataclass(frozen=True, slots=True)
class _Accepted:
    """Describes deliveries that Redis has accepted."""

    destination: str
    partition: int
    at_ms: int

    def record(self, one: NewDelivery, *, reveal: bool) -> dict[str, Any]:
        found_in = {"partition": self.partition, "lane": one.lane}
        return {
            **record_of(TapKind.EVENT, self.at_ms, self.destination, **found_in),
            **about(one),
            **shown_content(decode_profile(one.profile), reveal=reveal, mask=masked_profile),
        }

    def words(self, one: NewDelivery, *, reveal: bool) -> Sequence[str]:
        profile = (decode_profile(one.profile).decode(errors="replace"),) if reveal else ()
        return [one.trigger, one.header.audience, one.lane, *profile]


def offer_events(
    client: Redis, taps: Taps, laid_out: LaidOut, written: Published, now_us: int
) -> None:
    """Offer the deliveries of a draft, unless a part of it had been written before.

    Sending them takes a round trip; the budget of records makes that at most 10 a second.
    """
    if written.accepted < laid_out.deliveries_count:
        return
    with harmless("tap.failed", taps.forget):
        for (destination, partition), deliveries in laid_out.deliveries.items():
            description = _Accepted(destination, partition, now_us // 1_000)
            taps.offer(TapKind.EVENT, destination, deliveries, description)
    if not taps.is_due():
        return
    try:
        is_anybody_there = offer_records(client, taps.take())
    except RedisUnavailable:
        # The events are accepted. Whoever publishes must not wait for the same Redis again.
        is_anybody_there = False
    if not is_anybody_there:
        taps.forget()

"""Taps in Redis: a watch is registered and read by one script, and served by another.

Both touch one slot. The records of a watch stand in a capped stream, which is gone soon after
nobody renews the watch: a reader that stands still costs Redis no more than that.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.protection import PROTECTION, TAPS
from segrelay.worker.contract.redis.client import AsyncRedis, Redis
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    load_script,
    named_answer,
    run_script,
    run_script_async,
    script_call,
)
from segrelay.worker.contract.taps import MOST_RECORDS, TapFilter, TapOffer
from segrelay.worker.errors import RedisUnavailable, UsageWrong

LAPSE_MS: Final = 10_000
"""The time after which a watch lapses that nobody renews."""
MOST_WATCHES: Final = 8
_LOOK: Final = load_script("tap_look")
_OFFER: Final = load_script("tap_offer")


def offer_records(client: Redis, offers: Sequence[TapOffer]) -> bool:
    """Send records to their watches; return whether any of these is still there.

    Raises:
        RedisUnavailable: It is not known whether they were sent; they must not be sent again.
    """
    call = _offer_call(offers)
    return bool(run_script(client, _OFFER, call.keys, call.args))


async def offer_records_async(client: AsyncRedis, offers: Sequence[TapOffer]) -> bool:
    """Send records from an event loop; see `offer_records`."""
    call = _offer_call(offers)
    return bool(await run_script_async(client, _OFFER, call.keys, call.args))


def _offer_call(offers: Sequence[TapOffer]) -> ScriptCall:
    return script_call(
        _OFFER,
        taps=keys.TAPS,
        streams=[keys.tap(offer.watch_id) for offer in offers],
        kept=MOST_RECORDS,
        lapse=LAPSE_MS,
        watches={
            "id": [offer.watch_id for offer in offers],
            "count": [len(offer.records) for offer in offers],
            "left": [offer.left_out for offer in offers],
        },
        records=[PROTECTION.seal(record, TAPS) for offer in offers for record in offer.records],
    )


@dataclass(frozen=True, slots=True)
class TapLook:
    """The records that a look has found, the oldest first.

    Args:
        left_out: The number of things, since the watch began, that it wanted and did not get.
        is_new: The watch began with this look: nobody had registered it, or it had lapsed.
    """

    records: Sequence[Mapping[str, Any]]
    left_out: int
    is_new: bool


@dataclass(slots=True)
class TapWatch:
    """A watch as its reader has it: renewed by each look.

    Args:
        watch_id: Another one for each watch, unless several readers share one.
    """

    client: Redis
    filter: TapFilter
    watch_id: str = field(default_factory=lambda: secrets.token_hex(6))
    _after: str = "0"
    _read: int = 0

    def look(self) -> TapLook:
        """Renew the watch, or begin it, and return what has come since the last look.

        Raises:
            UsageWrong: There are too many watches.
            RedisUnavailable: Redis can't be asked; the watch lapses in a while.
        """
        found = self._ask(self._after)
        entries: Sequence[Any] = found["entries"]
        if found["taken"] == 1:
            self._read = 0
        if entries:
            self._after = entries[-1][0].decode()
        self._read += len(entries)
        # What stands in the stream still, because it is full of more, is not lost yet.
        is_behind = len(entries) == MOST_RECORDS
        lost = 0 if is_behind else max(0, found["sent"] - self._read)
        return TapLook(_records(entries), found["left"] + lost, found["taken"] == 1)

    def newest(self, count: int) -> TapLook:
        """Renew the watch, or begin it, and return the newest records, for readers who share it."""
        found = self._ask("", count)
        entries = list(reversed(found["entries"]))
        return TapLook(_records(entries), found["left"], found["taken"] == 1)

    def end(self) -> None:
        """Take the watch back; where Redis is away, it lapses by itself."""
        names = (self.watch_id, *(f"{self.watch_id}|{part}" for part in ("until", "left", "sent")))
        with suppress(RedisUnavailable):
            pipe = self.client.pipeline(transaction=False)
            pipe.hdel(keys.TAPS, *names)
            pipe.unlink(keys.tap(self.watch_id))
            pipe.execute()

    def _ask(self, after: str, count: int = MOST_RECORDS) -> dict[str, Any]:
        call = script_call(
            _LOOK,
            taps=keys.TAPS,
            stream=keys.tap(self.watch_id),
            id=self.watch_id,
            watch=self.filter.dumps(),
            lapse=LAPSE_MS,
            most=MOST_WATCHES,
            after=after,
            count=count,
        )
        found = named_answer(_LOOK, run_script(self.client, _LOOK, call.keys, call.args))
        if not found["taken"]:
            raise UsageWrong(
                f"{MOST_WATCHES} people watch already, and more would slow the workers: wait until"
                " one of them ends."
            )
        return found


def _records(entries: Sequence[Any]) -> list[Mapping[str, Any]]:
    return [orjson.loads(PROTECTION.unseal(fields[1], TAPS)) for _, fields in entries]

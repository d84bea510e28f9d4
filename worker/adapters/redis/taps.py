"""Sending the records of a drain to those who watch, beside the drain and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from segrelay.worker.contract.redis.client import AsyncRedis, RedisError
from segrelay.worker.contract.redis.taps import offer_records_async
from segrelay.worker.contract.taps import Taps
from segrelay.worker.errors import SegrelayError

EVERY_SECONDS: Final = 0.2
LAST_SECONDS: Final = 0.2
"""The seconds that the last records of a drain may take; as a rule it is a millisecond or two."""


@asynccontextmanager
async def sending_records(client: AsyncRedis, taps: Taps) -> AsyncIterator[None]:
    """Send the records every so often while a drain runs, and the last ones at its end.

    Only the one sending that is under way waits for Redis. What comes meanwhile is kept within the
    budget of a watch; the drain goes on.
    """
    if not taps:
        yield
        return
    ended = asyncio.Event()
    sending = asyncio.ensure_future(_send_again(client, taps, ended))
    try:
        yield
    finally:
        ended.set()
        await asyncio.wait({sending}, timeout=LAST_SECONDS)
        sending.cancel()
        await asyncio.wait({sending})


async def _send_again(client: AsyncRedis, taps: Taps, ended: asyncio.Event) -> None:
    while not ended.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY_SECONDS):
                await ended.wait()
        offers = taps.take()
        if not offers:
            continue
        try:
            is_anybody_there = await offer_records_async(client, offers)
        except (SegrelayError, RedisError):
            taps.lose(offers)
        except asyncio.CancelledError:
            taps.lose(offers)
            raise
        else:
            if not is_anybody_there:
                taps.forget()

"""Samples of how much is settled and how much waits: workers write them, `status` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors

EVERY_SECONDS: Final = 10.0
KEPT: Final = 360
"""The number of samples that are kept: an hour of them."""
_RECENT: Final = 15
"""The number of newest samples that are read: more than two minutes of them."""
_OLDER: Final = (80, 89, -1)
"""The places of older samples that are read: around a quarter of an hour ago, and the oldest.

With 400 triggers a sample has 30 KB, and a scrape of the metrics would else read 90 of them.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """The counts at one moment.

    Args:
        at_ms: Redis' clock.
        counts: By destination, as `progress.lua` names them.
    """

    at_ms: int
    counts: Mapping[str, Mapping[str, int]]
    quarantined: int = 0


def sample_before(samples: Sequence[Sample], at_ms: float) -> Sample | None:
    """Return the newest sample of this time or before, else the oldest; None if there are none."""
    oldest = samples[-1] if samples else None
    return next((sample for sample in samples if sample.at_ms <= at_ms), oldest)


def read_samples(client: redis.Redis) -> list[Sample]:
    """Return the samples of two minutes, some of a quarter of an hour ago, and the oldest.

    The newest stands first.
    """
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        pipe.lrange(keys.PROGRESS, 0, _RECENT - 1)
        for place in _OLDER:
            pipe.lindex(keys.PROGRESS, place)
        newest, *older = pipe.execute()
    texts = dict.fromkeys(text for text in (*newest, *older) if text)
    return [Sample(**orjson.loads(text)) for text in texts]

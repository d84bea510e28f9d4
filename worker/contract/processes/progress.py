"""Samples of how much is settled and how much waits: workers write them, `status` reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, overload

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
"""The places of the others that are read: around a quarter of an hour ago, and the oldest. One has
30 KB where there are 400 triggers, and a scrape of the metrics would take 90 of them."""


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


@dataclass(slots=True)
class StoredSamples(Sequence[Sample]):
    """Samples as Redis keeps them, the newest first; each is read when it is looked at.

    One of 400 triggers has a thousand numbers, and few of the samples are needed.
    """

    texts: Sequence[bytes]
    _read: dict[int, Sample] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(at, slice):
            return [self[one] for one in range(len(self))[at]]
        place = range(len(self))[at]
        if place not in self._read:
            self._read[place] = Sample(**orjson.loads(self.texts[place]))
        return self._read[place]


def sample_before(samples: Sequence[Sample], at_ms: float) -> Sample | None:
    """Return the newest sample that is as old as a time, else the oldest; None = there is none."""
    if not samples:
        return None
    found = bisect_left(range(len(samples)), -at_ms, key=lambda number: -samples[number].at_ms)
    return samples[min(found, len(samples) - 1)]


def read_samples(client: redis.Redis) -> Sequence[Sample]:
    """Return the samples of two minutes, some of a quarter of an hour ago, and the oldest.

    The newest stands first.
    """
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        pipe.lrange(keys.PROGRESS, 0, _RECENT - 1)
        for place in _OLDER:
            pipe.lindex(keys.PROGRESS, place)
        newest, *older = pipe.execute()
    return StoredSamples(list(dict.fromkeys(text for text in (*newest, *older) if text)))

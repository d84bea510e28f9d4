"""`RedisProgress`: samples of how much is settled and how much waits, which show a standstill."""

from __future__ import annotations

from collections import Counter
from typing import Final

import orjson
import redis

from worker.adapters.redis import scripts
from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.processes.progress import EVERY_SECONDS, KEPT, Sample
from worker.contract.redis.clock import now_ms
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import ScriptCall, run_each
from worker.contract.settings import Settings

_LOCK_MS: Final = round(EVERY_SECONDS * 1_000) - 500


class RedisProgress:
    """Keeps a sample every few seconds, whatever the number of workers.

    Args:
        client: With short timeouts.
        settings: Its destinations are sampled.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def note(self) -> None:
        """Keep a sample, if none was kept lately."""
        with redis_errors():
            if not scripts.call_sync(self._client, "once", [keys.PROGRESS_LOCK], [_LOCK_MS]):
                return
        places = [
            PartitionKeys(name, number)
            for name in self._settings.destinations
            for number in self._settings.redis.numbering.all_numbers
        ]
        calls = [ScriptCall((place.counts, place.streams), (place.tag,)) for place in places]
        answers = run_each(self._client, scripts.source("progress"), calls)
        counts: dict[str, Counter[str]] = {}
        for place, flat in zip(places, answers, strict=True):
            of_destination = counts.setdefault(place.destination, Counter())
            for name, count in zip(flat[::2], flat[1::2], strict=True):
                of_destination[name.decode()] += int(count)
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.hlen(keys.quarantine("about"))
            (quarantined,) = pipe.execute()
            sample = Sample(now_ms(self._client), counts, quarantined)
            scripts.call_sync(self._client, "sample", [keys.PROGRESS], [orjson.dumps(sample), KEPT])

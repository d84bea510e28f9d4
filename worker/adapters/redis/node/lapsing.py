"""`RedisLapsing`: removes ledgers whose time is past, unless something waits that may be older."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import redis

from worker.adapters.redis import scripts
from worker.contract import keys
from worker.contract.keys import DIGEST_BYTES, PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import AnotherServer, read_keys, scan_parts
from worker.contract.redis.scripts import ScriptCall, run_each
from worker.contract.settings import Settings

_LEDGER: Final = re.compile(rb"\{([a-z0-9-]+):(\d+)\}l.{%d}" % DIGEST_BYTES, re.DOTALL)

_KEYS_A_STEP: Final = 500
"""The keys that one step looks at, once a second: 43 million a day."""


class RedisLapsing:
    """Looks at all ledgers in turn, a few at each call, and begins anew at the end.

    It is in no hurry: a ledger that is removed late costs a few bytes. Where a slot of a Cluster is
    being moved, or another server has taken over, the rest is looked at in the next turn.

    Args:
        client: With short timeouts.
        settings: Its numbering tells which partitions are there; the others are being moved.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._found: Iterator[list[bytes]] = iter(())

    def step(self) -> int:
        """Look at the next ledgers; return how many were removed."""
        calls = [
            ScriptCall((place.lease, place.streams, *names), (place.tag,))
            for place, names in self._next().items()
        ]
        return sum(run_each(self._client, scripts.source("lapse"), calls)) if calls else 0

    def _next(self) -> dict[PartitionKeys, list[bytes]]:
        """Return the next ledgers by their partitions; nothing at the end of a turn."""
        names = next(self._found, None)
        if names is None:
            self._found = self._all()
        found: defaultdict[PartitionKeys, list[bytes]] = defaultdict(list)
        for name in names or ():
            match = _LEDGER.fullmatch(name)
            if match and int(match[2]) in self._settings.redis.numbering.numbers:
                found[PartitionKeys(match[1].decode(), int(match[2]))].append(name)
        return found

    def _all(self) -> Iterator[list[bytes]]:
        with redis_errors():
            known: set[bytes] = self._client.smembers(keys.DESTINATIONS)  # type: ignore[assignment]
        places = [
            PartitionKeys(name.decode(), number)
            for name in sorted(known)
            for number in self._settings.redis.numbering.numbers
        ]
        for part in scan_parts(self._client, places, "l*"):
            try:
                yield from read_keys(
                    self._client, part, "string", count=_KEYS_A_STEP, patient=False
                )
            except AnotherServer:
                continue

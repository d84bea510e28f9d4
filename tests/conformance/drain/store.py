"""What a Valkey keeps of one partition, as tests look at it and change it."""

from collections import Counter
from typing import Any

import orjson

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Hold
from segrelay.worker.contract.events import read_header
from segrelay.worker.contract.keys import PartitionKeys, split_stream_name
from segrelay.worker.contract.outcomes import OutcomeRow, unpack
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.core.backoff import Backoff, Wait

_LENGTHS = """
local found = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  found[#found + 1] = name
  found[#found + 1] = redis.call('XLEN', ARGV[1] .. name)
end
return found
"""


class Store:
    """Reads anew at each look; the names are those of the keys."""

    def __init__(self, client: Redis, keys: PartitionKeys) -> None:
        self.client = client
        self.keys = keys

    @property
    def streams(self) -> dict[str, dict[str, Delivery]]:
        names = sorted(name.decode() for name in self.client.smembers(self.keys.streams))
        return {name: self._entries(name) for name in names}

    @property
    def counts(self) -> Counter[str]:
        return Counter({name: int(n) for name, n in self._hash("counts").items()})

    @property
    def dead_letters(self) -> dict[str, bytes]:
        return self._hash("dead_letters")

    @property
    def intents(self) -> dict[str, bytes]:
        return self._hash("intents")

    @property
    def open(self) -> dict[str, int]:
        return {name: int(end) for name, end in self._hash("open").items()}

    @property
    def retry(self) -> dict[str, Wait]:
        return {name: Wait(*orjson.loads(text)) for name, text in self._hash("retry").items()}

    @property
    def aside(self) -> dict[str, Backoff]:
        return {name: Backoff(*orjson.loads(text)) for name, text in self._hash("aside").items()}

    @property
    def wakeup(self) -> str:
        return (self.client.get(self.keys.wakeup) or b"").decode()

    @property
    def token(self) -> str:
        return (self.client.hget(self.keys.lease, "token") or b"").decode()

    @property
    def outcomes(self) -> list[OutcomeRow]:
        entries = self.client.xrange(self.keys.outcomes)
        return [row for entry in entries for row in unpack(self.keys, *entry)]

    def waiting(self) -> int:
        """Return how many deliveries wait."""
        return sum(self.lengths().values())

    def lengths(self) -> dict[str, int]:
        """Return how many deliveries wait in each stream."""
        found = iter(self.client.eval(_LENGTHS, 1, self.keys.streams, self.keys.stream("")))
        return {name.decode(): length for name, length in zip(found, found, strict=True)}

    def ledger(self, digest: bytes) -> bytes | None:
        return self.client.get(self.keys.ledger(digest))

    def put_ledger(self, digest: bytes, text: bytes) -> None:
        self.client.set(self.keys.ledger(digest), text)

    def put_hold(self, stream: str, hold: Hold) -> None:
        self.client.hset(self.keys.holds, stream, f"{hold.last_id} {hold.until_ms}")

    def put_entry(self, stream: str, entry_id: str, header: bytes, profile: bytes) -> None:
        """Put something else in the place of an entry."""
        key = self.keys.stream(stream)
        rows = self.client.xrange(key)
        self.client.delete(key)
        for each, fields in rows:
            is_it = each.decode() == entry_id
            self.client.xadd(key, {"h": header, "p": profile} if is_it else fields, id=each)

    def _hash(self, part: str) -> dict[str, Any]:
        stored = self.client.hgetall(getattr(self.keys, part))
        return {name.decode(): text for name, text in stored.items()}

    def _entries(self, name: str) -> dict[str, Delivery]:
        _, trigger = split_stream_name(name)
        return {
            i.decode(): Delivery(
                name, trigger, i.decode(), read_header(row[b"h"]), row[b"p"], row[b"h"]
            )
            for i, row in self.client.xrange(self.keys.stream(name))
        }

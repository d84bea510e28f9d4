"""Reading all fields of a hash, or all keys of partitions, in many calls with a cursor.

A cursor counts in one process of a server only: another one has the same keys in another order. So
each answer names the process, and where another one answers, after a failover, a restart or the
move of a slot, the reading ends with an error: it has to be done again.

Keys of a Cluster are read slot by slot. While a slot is moved key by key, its keys are on two
nodes, and no node has all of them: its reading waits for the end of the move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import load_script, run_script
from segrelay.worker.errors import RedisUnavailable

_SCAN: Final = load_script("scan")
_FIELDS_A_CALL: Final = 1_000
_KEYS_A_CALL: Final = 2_000
_BEGIN: Final = b"0"


def scan_keys(
    client: Redis,
    partitions: Sequence[PartitionKeys],
    pattern: str,
    kind: str = "",
    *,
    count: int = _KEYS_A_CALL,
) -> Iterator[list[bytes]]:
    """Yield the keys of partitions, some at a time; some may come twice.

    Args:
        client: The client; with a single server all partitions are read at once.
        partitions: The partitions.
        pattern: The pattern of the keys, as SCAN takes it, without the partition's tag.
        kind: The type of the keys, as TYPE names it; "" = any.
        count: About how many keys are looked at in one call.

    Raises:
        RedisUnavailable: Redis can't be asked, a slot is being moved for long, or another server
            has answered meanwhile.
    """
    destinations = {partition.destination for partition in partitions}
    of_all = destinations.pop() if len(destinations) == 1 else "*"
    # The hash tag alone is a key in the slot that is read; on a single server any key is.
    parts = [(keys.FORMAT, f"{{{of_all}:*}}{pattern}")]
    if client.is_cluster:
        parts = [(each.tag, each.tag + pattern) for each in partitions]
    for key, wanted in parts:
        yield from _read(client, key, "SCAN", count, wanted, kind)


def scan_fields(client: Redis, key: str) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the fields of a hash with their values, some at a time; some may come twice.

    Raises:
        RedisUnavailable: Redis can't be asked, or another server has answered meanwhile.
    """
    for found in _read(client, key, "HSCAN", _FIELDS_A_CALL):
        yield list(zip(found[::2], found[1::2], strict=True))


def _read(client: Redis, key: str, name: str, *args: str | int) -> Iterator[list[bytes]]:
    reader, cursor = b"", _BEGIN
    while True:
        server, following, found = run_script(client, _SCAN, (key,), (name, cursor, *args))
        if reader not in {b"", server}:
            raise RedisUnavailable(
                "Another server of Redis has answered while all was read, so some may be missing:"
                " do it again."
            )
        reader, cursor = server, following
        if found:
            yield found
        if cursor == _BEGIN:
            return

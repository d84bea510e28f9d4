"""The present partitions of profiles, for workers that still hold a partition of a former number.

A worker that stood still meanwhile may still have to repair what its last request did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import redis.asyncio

from worker.adapters.redis import scripts
from worker.contract.keys import PARTITIONS, PartitionKeys
from worker.contract.numbering import RENUMBERED, Numbering
from worker.contract.redis.connection import redis_errors


async def places_of(
    client: redis.asyncio.Redis, keys: PartitionKeys, digests: Sequence[bytes]
) -> Mapping[PartitionKeys, list[int]]:
    """Return the present partitions of a partition's profiles, with their indices in `digests`."""
    with redis_errors():
        token = await scripts.command(client, "HGET", keys.lease, "token")
    if not (token or b"").startswith(RENUMBERED.encode()):
        return {keys: list(range(len(digests)))}
    with redis_errors():
        numbering = Numbering.loads(await scripts.command(client, "GET", PARTITIONS))
    if numbering.target:
        numbering = numbering.following
    found: dict[PartitionKeys, list[int]] = {}
    for index, digest in enumerate(digests):
        place = PartitionKeys(keys.destination, numbering.of_digest(digest))
        found.setdefault(place, []).append(index)
    return found

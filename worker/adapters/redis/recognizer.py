"""`RedisRecognizer`: keeps in Redis which stable ids came with which identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.contract.keys import PartitionKeys, stable_partition
from segrelay.worker.contract.people import (
    CLAIMS_OUTLIVE_MS,
    MOST_CHANGES,
    WAITS,
    Sighting,
    time_text,
)
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import AsyncRedis
from segrelay.worker.contract.redis.scripts import ScriptCall, run_each_async

SEEN: Final = scripts.source("stable_seen")
CLAIMS: Final = scripts.source("stable_claims")


class RedisRecognizer:
    """Keeps the stable ids of one destination; see `segrelay.worker.contract.people.Recognizer`.

    Args:
        client: Repeats nothing by itself.
        partition: The partition in which the identities are.
        retention_seconds: The retention of somebody whose newest event is no entrance.
    """

    def __init__(
        self,
        client: AsyncRedis,
        partition: PartitionKeys,
        *,
        field: str,
        identity: str,
        partitions: int,
        retention_seconds: float,
    ) -> None:
        self._client = client
        self._partition = partition
        self.field = field
        self.identity = identity
        self.partitions = partitions
        self._retention_ms = round(1_000 * retention_seconds)

    async def see(self, sightings: Sequence[Sighting], triggers: Sequence[str]) -> list[str]:
        """Remember sightings in one round trip, and return what becomes of the events of each.

        Args:
            sightings: Those of a batch.
            triggers: Of each the trigger of its newest event.

        Raises:
            RedisUnavailable: Some may be remembered.
        """
        at: dict[int, list[int]] = {}
        for number, each in enumerate(sightings):
            at.setdefault(stable_partition(each.stable, self.partitions), []).append(number)
        calls = [
            (SEEN, self._seen(partition, [(sightings[i], triggers[i]) for i in numbers]))
            for partition, numbers in at.items()
        ]
        # Who erases a person finds their stable ids by the lists: they are written first.
        _, *answers = await run_each_async(
            self._client, [(CLAIMS, self._claims(sightings)), *calls]
        )
        found = [""] * len(sightings)
        for numbers, answer in zip(at.values(), answers, strict=True):
            for number, told in zip(numbers, answer, strict=True):
                text = told.decode()
                found[number] = text if text == WAITS else PROTECTION.unseal_name(text)
        return found

    def _seen(self, number: int, rows: Sequence[tuple[Sighting, str]]) -> ScriptCall:
        partition = replace(self._partition, number=number)
        args: list[str | int] = [self._retention_ms, MOST_CHANGES]
        args += [
            f"{each.stable.hex()}\n{each.identity.hex()}\n{PROTECTION.seal_name(each.key)}\n"
            f"{time_text(each.time_us)}\n{each.lasts:d}\n{PROTECTION.seal_name(each.forward)}\n"
            f"{each.by_person:d}\n{trigger}"
            for each, trigger in rows
        ]
        records = [partition.stable(each.stable) for each, _ in rows]
        return ScriptCall([partition.changes, partition.changed, partition.lease, *records], args)

    def _claims(self, sightings: Sequence[Sighting]) -> ScriptCall:
        told = "".join([f"{each.stable.hex()}{each.lasts:d}" for each in sightings])
        args = (self._retention_ms + CLAIMS_OUTLIVE_MS, told)
        lists = [self._partition.claims(each.identity) for each in sightings]
        return ScriptCall([self._partition.lease, *lists], args)

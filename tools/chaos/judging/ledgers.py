"""The ledgers of people, read after a run."""

from __future__ import annotations

from collections.abc import Iterable

from segrelay.ops.demo.rig import DESTINATION, Rig
from segrelay.ops.state.person import LedgerLine, Names, read_records
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of


def ledgers_of(rig: Rig, emails: Iterable[str]) -> dict[str, list[LedgerLine]]:
    """Return the lines of people's ledgers, by email."""
    names = Names(rig.client)
    partitions: dict[int, list[str]] = {}
    for email in emails:
        partition = partition_of(key_of(email), rig.settings.redis.partitions)
        partitions.setdefault(partition, []).append(email)
    found: dict[str, list[LedgerLine]] = {}
    for partition, own in partitions.items():
        place = PartitionKeys(DESTINATION, partition)
        records = read_records(rig.client, place, [digest_of(key_of(email)) for email in own])
        found |= {e: list(names.lines(record)) for e, record in zip(own, records, strict=True)}
    return found


def key_of(email: str) -> str:
    """Return the profile key of an email address."""
    return f"email:{email}"

"""Finding the ledgers among the keys of a partition, and the end of their retention."""

from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys
from segrelay.worker.contract.ledger import LAPSING_FORMAT


def digest_in(key: bytes, partition: PartitionKeys) -> bytes | None:
    """Return the digest in the key of a ledger record; None for another key of the partition."""
    start = partition.ledger(b"")
    digest = key.removeprefix(start)
    is_ledger = key.startswith(start) and len(digest) == DIGEST_BYTES
    return digest if is_ledger and key != partition.dead_letter_times.encode() else None


def lapsing_text(ends_ms, record=b""):
    """Return a ledger as Redis keeps it until its retention ends."""
    return bytes([LAPSING_FORMAT]) + ends_ms.to_bytes(6, "big") + record

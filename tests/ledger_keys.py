"""Finding the ledgers among the keys of a partition."""

from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys


def digest_in(key: bytes, partition: PartitionKeys) -> bytes | None:
    """Return the digest in the key of a ledger record; None for another key of the partition."""
    start = partition.ledger(b"")
    digest = key.removeprefix(start)
    is_ledger = key.startswith(start) and len(digest) == DIGEST_BYTES
    return digest if is_ledger and key != partition.dead_letter_times.encode() else None

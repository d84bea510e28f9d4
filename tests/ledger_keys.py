"""Ledgers among keys, the end of their retention, events for them, and keys with people's data."""

import re

from segrelay.worker.contract.events import UNREADABLE
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys
from segrelay.worker.contract.ledger import LAPSING_FORMAT
from segrelay.worker.core.ledger import LedgerEvent

PERSONAL = re.compile(
    rb"\{quarantine\}:|\{[^{}]+:\d+\}(s:"
    rb"|dead_letters$|who$|responses$|outcomes$|members:)"
)


def is_personal(key):
    """Say whether a key, and with it an append-only file or a backup, may hold people's data."""
    return bool(PERSONAL.match(key))


def digest_in(key: bytes, partition: PartitionKeys) -> bytes | None:
    """Return the digest in the key of a ledger record; None for another key of the partition."""
    start = partition.ledger(b"")
    digest = key.removeprefix(start)
    is_ledger = key.startswith(start) and len(digest) == DIGEST_BYTES
    return digest if is_ledger and key != partition.dead_letter_times.encode() else None


def lapsing_text(ends_ms, record=b""):
    """Return a ledger as Redis keeps it until its retention ends."""
    return bytes([LAPSING_FORMAT]) + ends_ms.to_bytes(6, "big") + record


def lapses_at_ms(text):
    """Return when the retention of a stored record ends (ms); 0 = it never lapses."""
    return int.from_bytes(text[1:7], "big") if text[:1] == bytes([LAPSING_FORMAT]) else 0


def ledger_event(time_us, direction, trigger, audience=0, *, profile_hash=0, **flags):
    """Return an event of a trigger and an audience, given by their numbers."""
    header = UNREADABLE._replace(time_us=time_us, direction=direction, **flags)
    return LedgerEvent(header, (audience, trigger), profile_hash)

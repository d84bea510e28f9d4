"""`Numbering`: the numbers of the partitions, and the partition of each profile.

A partition's number is never given again. When the count changes, the partitions that follow begin
behind the highest number there ever was, so their keys are others than those of all before: a
process that still works with the former numbers can't write into a partition that somebody reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

from segrelay.worker.contract.keys import digest_of, partition_of

RENUMBERED_LEASE: Final = "renumbered:"
"""The beginning of the lease token of a partition with a former number, which is closed.

Nobody takes that lease any more, and the scripts that add something refuse.
"""
_DECIDING_BYTES: Final = 4
"""The number of bytes at the end of a digest that decide its partition.

They are the last ones, because the first ones order the sample of `verify`. Before the number of
partitions is changed for the first time, a stable id's partition follows from the first bytes.
"""


@dataclass(frozen=True, slots=True)
class Numbering:
    """The counts of partitions that this Redis has had, the present one last.

    At first a profile's partition follows from a checksum of its key. The ledger knows only
    digests, so that from the first change on it follows from the digest.

    Args:
        counts: In their order, at least one.
        target: The count to which it is being changed; 0 = it is not.
    """

    counts: tuple[int, ...]
    target: int = 0

    @property
    def first(self) -> int:
        """Return the lowest number of the present partitions."""
        return sum(self.counts[:-1])

    @property
    def count(self) -> int:
        """Return how many partitions there are."""
        return self.counts[-1]

    @property
    def numbers(self) -> range:
        """Return the numbers of the present partitions."""
        return range(self.first, self.first + self.count)

    @property
    def following(self) -> Numbering:
        """Return the numbering that holds after the change under way."""
        return Numbering((*self.counts, self.target))

    @property
    def settled(self) -> Numbering:
        """Return the present numbering, as it is without a change."""
        return replace(self, target=0)

    def of(self, profile_key: str, digest: bytes = b"") -> int:
        """Return the partition of a profile; its digest is needed after the first change only."""
        counts = self.counts
        if len(counts) == 1:
            return partition_of(profile_key, counts[0])
        return self.of_digest(digest or digest_of(profile_key))

    def of_digest(self, digest: bytes) -> int:
        """Return the partition of the profile with a digest.

        Raises:
            ValueError: The count has never changed, so that the digest does not tell it.
        """
        if len(self.counts) == 1:
            raise ValueError("a digest tells no partition before the count has changed")
        return self.first + int.from_bytes(digest[-_DECIDING_BYTES:]) % self.count

    def of_stable(self, digest: bytes) -> int:
        """Return the partition in which a stable id is kept, by its digest."""
        if len(self.counts) == 1:
            return int.from_bytes(digest[:_DECIDING_BYTES]) % self.count
        return self.of_digest(digest)

    def dumps(self) -> str:
        """Return the text that Redis keeps: `16`, `16>5` during a change, `16,5` after it."""
        changing = f">{self.target}" if self.target else ""
        return ",".join(map(str, self.counts)) + changing

    @classmethod
    def loads(cls, text: str | bytes) -> Self:
        """Read what `dumps` has written."""
        settled, _, target = (text.decode() if isinstance(text, bytes) else text).partition(">")
        return cls(tuple(map(int, settled.split(","))), int(target or 0))

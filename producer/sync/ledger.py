"""The comparison of an audience with the ledger, for the runs of a sync and `segrelay reconcile`.

What the ledger knows to be newer than the scan is no difference: it has changed since.
"""

from __future__ import annotations

from dataclasses import dataclass

from producer.publish import Publisher
from worker.contract.ledger import LastDelivered
from worker.contract.words import Direction


@dataclass(frozen=True, slots=True)
class LedgerComparison:
    """Compares what was delivered to one destination with a scan.

    Args:
        enters: A trigger there wants the audience's entrances; otherwise nobody is missing.
        exits: One wants its exits; otherwise nobody is stale.
        until_us: Up to when a delivery may be found to be wrong, by the source's clock: the
            beginning of the scan.
    """

    enters: bool
    exits: bool
    until_us: int

    @classmethod
    def of(
        cls, publisher: Publisher, destination: str, audience: str, until_us: int
    ) -> LedgerComparison:
        """Return the comparison for a destination's triggers."""
        enters, exits = (
            any(each.destination == destination for each in publisher.recipients_for(audience, way))
            for way in (Direction.ENTER, Direction.EXIT)
        )
        return cls(enters, exits, until_us)

    def is_newer(self, last: LastDelivered | None) -> bool:
        """Say whether something newer than the scan was delivered about a person."""
        return last is not None and last[1] > self.until_us

    def is_missing(self, last: LastDelivered | None) -> bool:
        """Say whether somebody whom the scan has is out by the ledger, or unknown to it."""
        is_in = last is not None and last[0] is Direction.ENTER
        return self.enters and not is_in and not self.is_newer(last)

    def is_stale(self, last: LastDelivered | None) -> bool:
        """Say whether somebody whom the scan has not is in by the ledger."""
        is_in = last is not None and last[0] is Direction.ENTER
        return self.exits and is_in and not self.is_newer(last)

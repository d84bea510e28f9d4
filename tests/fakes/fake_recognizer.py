"""`FakeRecognizer`: stable ids in memory; the model of the scripts about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.people import DAY_MS, MOST_CHANGES, WAITS, Sighting


@dataclass(frozen=True, slots=True)
class FakeRecord:
    """What is known of a stable id."""

    time_us: int
    key: str
    changes: int = 0
    since_ms: int = 0
    refused: str = "-"


@dataclass(frozen=True, slots=True)
class FakeChange:
    """A change that is not done yet."""

    trigger: str
    time_us: int
    old: str
    new: str


@dataclass(slots=True)
class FakeRecognizer:
    """Knows stable ids; see `segrelay.worker.contract.people.Recognizer`."""

    now_ms: Callable[[], int]
    field: str = "_uid"
    identity: str = "email"
    numbering: Numbering = dataclasses.field(default_factory=lambda: Numbering((16,)))
    records: dict[bytes, FakeRecord] = dataclasses.field(default_factory=dict)
    changes: dict[bytes, FakeChange] = dataclasses.field(default_factory=dict)
    refused: int = 0
    renamed: int = 0
    asked: int = 0

    async def see(self, sightings: Sequence[Sighting], triggers: Sequence[str]) -> list[str]:
        """Remember sightings; returns what becomes of their events."""
        self.asked += 1
        pairs = zip(sightings, triggers, strict=True)
        return [self._see(each, trigger) for each, trigger in pairs]

    def _see(self, one: Sighting, trigger: str) -> str:
        if one.stable in self.changes:
            return WAITS
        record = self.records.get(one.stable)
        last = one.forward or one.key
        if record is None or record.key == one.key:
            record = record or FakeRecord(0, last)
            self.records[one.stable] = replace(
                record, time_us=max(record.time_us, one.time_us), key=last
            )
            return "" if last == one.key else last
        return self._see_other(one, trigger, record)

    def _see_other(self, one: Sighting, trigger: str, record: FakeRecord) -> str:
        """See a stable id with another identity than before."""
        is_newer = one.time_us > record.time_us
        if one.forward and (one.by_person or not is_newer):
            return record.key
        if record.refused == one.identity.hex():
            return ""
        if record.refused == f"<{one.identity.hex()}" and not is_newer:
            return record.key
        now_ms = self.now_ms()
        if not now_ms - DAY_MS < record.since_ms <= now_ms:
            record = replace(record, changes=0, since_ms=now_ms)
        if record.changes >= MOST_CHANGES:
            self.records[one.stable] = replace(record, refused=one.identity.hex())
            self.refused += 1
            return ""
        self.records[one.stable] = replace(record, changes=record.changes + 1)
        old, new = (record.key, one.key) if is_newer else (one.key, record.key)
        time_us = max(one.time_us, record.time_us)
        self.changes[one.stable] = FakeChange(trigger, time_us, old, new)
        return WAITS

    def end(self, stable: bytes, change: FakeChange, ending: str) -> bool:
        """End a change, unless it is another one by now."""
        if self.changes.get(stable) != change:
            return False
        del self.changes[stable]
        record = self.records[stable]
        if ending == "renamed":
            self.renamed += 1
            time_us = max(record.time_us, change.time_us)
            self.records[stable] = replace(record, time_us=time_us, key=change.new, refused="-")
            return True
        is_late = ending == "left" and record.key == change.new
        self.refused += not is_late
        other = digest_of(change.old if record.key == change.new else change.new).hex()
        self.records[stable] = replace(record, refused=f"<{other}" if is_late else other)
        return True

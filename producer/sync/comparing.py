"""The work of a run: compare the source's pages with the known members, then find who has left.

Both parts compare with the members that are known, and with the ledger. What the ledger knows to be
newer than the scan is no difference: it has changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from segrelay.producer.events.payloads import (
    FUTURE_TOLERANCE_US,
    ID,
    MICROSECONDS,
    PAYLOAD_ID,
    SEGMENT_EVENTS,
    Refused,
    format_time,
    profile_key,
    text_of,
)
from segrelay.producer.lytics import Page, begun_us
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import MemberChange
from segrelay.producer.sync.sources import Look, SyncSource
from segrelay.producer.sync.store import (
    NOT_KNOWN,
    Mark,
    Phase,
    Run,
    SyncStore,
    content_hash,
)
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.ledger import LastDelivered
from segrelay.worker.contract.redis.accept import Member
from segrelay.worker.contract.words import BACKFILL, LIVE, Direction
from segrelay.worker.errors import (
    PayloadRefused,
    ScanExpired,
    SourceDamaged,
    SourceUnavailable,
    UsageWrong,
)


class LedgerComparison(NamedTuple):
    """Compares what was delivered to one destination with a scan.

    Attributes:
        enters: True if a trigger there wants the audience's entrances; otherwise nobody is missing.
        exits: True if a trigger there wants the audience's exits; otherwise nobody is stale.
        until_us: The time (source's clock) up to which a delivery may be found to be wrong: the
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
            any(each.destination == destination for each in publisher.triggers_for(audience, way))
            for way in (Direction.ENTER, Direction.EXIT)
        )
        return cls(enters, exits, until_us)

    def is_missing(self, last: LastDelivered | None) -> bool:
        """Say whether somebody whom the scan has is out by the ledger, or unknown to it.

        Not if something newer than the scan was delivered about them.
        """
        is_out = last is None or (last[0] is not Direction.ENTER and last[1] <= self.until_us)
        return self.enters and is_out

    def is_stale(self, last: LastDelivered | None) -> bool:
        """Say whether somebody whom the scan has not is in by the ledger; see `is_missing`."""
        is_in = last is not None and last[0] is Direction.ENTER and last[1] <= self.until_us
        return self.exits and is_in


GROUP_ROWS: Final = 1_000
UNPLACED_KEPT: Final = 100
"""The number of rows without an identity that a run keeps in the quarantine as samples."""
RESTARTS: Final = 5
"""The number of times that a scan begins anew before its run ends as incomplete."""


_COMPARED_AT_ONCE: Final = 50
"""The number of missing members that are looked at before the differences are written."""


@dataclass(slots=True)
class Comparison:
    """Compares a source with the members that a sync knows, for one step of a run.

    Args:
        check_capacity: A function that raises where nothing more may be published into a lane.
        on_change: True if changes of members are events.
    """

    store: SyncStore
    publisher: Publisher
    source: SyncSource
    identity: str
    run: Run
    check_capacity: Callable[[str], None]
    on_change: bool
    _hashed: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    _looks: dict[str, Look] = field(default_factory=dict)
    _entries: dict[tuple[Direction, int], dict[str, Any]] = field(default_factory=dict)

    def scan(self, is_over: Callable[[], bool]) -> None:
        """Scan until the end, or until the step is over; what was compared is saved.

        Raises:
            SourceDamaged: The source is a file, and not whole.
            SourceUnavailable: The source can't be read now, or its clock is wrong.
        """
        while self.run.phase is Phase.SCAN:
            for destination in self.run.destinations:
                self.check_capacity(self._lane(destination))
            rows, last = self._group(is_over)
            if self.run.has_ended:
                self.store.save(self.run)
                return
            self._compare(rows)
            if last is None:
                self.scan_anew()
                continue
            self.run.rows += len(rows)
            self.run.start, self.run.origin = last.following, last.origin
            if not last.following:
                self.run.phase, self.run.next_partition = Phase.COUNT, 0
                self.run.seen = dict.fromkeys(self.run.destinations, 0)
                self.run.gone = dict.fromkeys(self.run.destinations, 0)
            self.store.save(self.run)
            if is_over():
                return

    def _group(self, is_over: Callable[[], bool]) -> tuple[list[dict[str, Any]], Page | None]:
        """Gather some pages; returns their rows and the last page, None if the scan expired."""
        rows: list[dict[str, Any]] = []
        last: Page | None = None
        start = self.run.start
        while last is None or (start and len(rows) < GROUP_ROWS and not is_over()):
            try:
                page = self.source.page(start, lambda: self.store.save(self.run))
            except ScanExpired:
                return rows, None
            except (SourceUnavailable, SourceDamaged):
                if last is None:
                    raise
                break
            if not start:
                self._begin(page)
            if self.run.has_ended:
                break
            if not start:
                # Before anything has this time: the next scan must be newer, also if this one dies.
                self.store.save(self.run)
            self.run.bad += page.bad
            if page.total is not None:
                self.run.last_total = page.total
                if self.run.first_total < 0:
                    self.run.first_total = page.total
            rows += page.rows
            last, start = page, page.following
        return rows, last

    def _begin(self, page: Page) -> None:
        """Take the scan's time from the source's clock; it never goes back from run to run.

        A scan that begins anew keeps its first time, which is true of later rows too.
        """
        now_us = 1000 * self.store.now_ms()
        if not self.source.is_live:
            self._begin_with_file(page, now_us)
        elif not self.run.restarts:
            self.run.at_us = max(begun_us(page, now_us), self.run.at_us + 1)
            self.run.repairs_until_us = self.run.at_us

    def _begin_with_file(self, page: Page, now_us: int) -> None:
        """Take the file's own time; end the run if a file of that time was compared already."""
        assert page.at is not None
        at_us = round(page.at.timestamp() * MICROSECONDS)
        if at_us < self.run.at_us:
            raise UsageWrong(
                f"The newest export is of {format_time(at_us)}, older than the one that was read"
                f" last ({format_time(self.run.at_us)}): it could undo what is newer. If its time"
                " was lost, give it a right one."
            )
        if at_us - now_us > FUTURE_TOLERANCE_US:
            raise UsageWrong(f"The newest export is of {format_time(at_us)}, which is to come.")
        is_known = at_us == self.run.at_us and self.run.was_done_with(at_us, page.origin)
        if is_known and not self.run.repairs_again:
            self.run.end(now_us // 1000, outcome="unchanged")
        if at_us > self.run.at_us and not self.run.restarts:
            self.run.repairs_until_us = self.run.at_us
        self.run.at_us = at_us

    def scan_anew(self) -> None:
        """Begin the scan again within its run, or end the run if that was done too often."""
        self.run.scan_anew()
        if self.run.restarts > RESTARTS:
            self.run.problem = (
                f"The scan was broken off {RESTARTS + 1} times; who has joined is published, who"
                " has left is not known. The next run begins anew."
            )
            self.run.end(self.store.now_ms(), outcome="expired")
        self.store.save(self.run)

    def _compare(self, rows: Iterable[dict[str, Any]]) -> None:
        people = self._keyed(rows)
        for destination in self.run.destinations:
            found = self.store.marks(destination, list(people))
            ledger = self._ledger(destination)
            delivered = self._delivered(destination, people) if ledger.enters else {}
            missing = {key: last[1] for key, last in delivered.items() if ledger.is_missing(last)}
            changes = list(self._changes(destination, people, found, missing))
            if not changes:
                continue
            self._publish(destination, changes, self._lane(destination))
            self._count(changes, is_first=destination == self.run.destinations[0])

    def _keyed(self, rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        people: dict[str, dict[str, Any]] = {}
        refused: list[Refused] = []
        for row in rows:
            try:
                key = profile_key(row, self.identity)
            except PayloadRefused as refusal:
                self.run.unplaced += 1
                if self.run.unplaced <= UNPLACED_KEPT:
                    refused.append(Refused.of(refusal, text_of(row), self.run.audience))
                continue
            people[key] = row
        self.publisher.keep_rows(refused)
        return people

    def _changes(
        self,
        destination: str,
        people: Mapping[str, dict[str, Any]],
        found: Mapping[str, bytes],
        missing: Mapping[str, int],
    ) -> Iterable[MemberChange]:
        """Yield the changes of members; `missing` has the times of exits that are no longer true.

        Such an exit is answered once, and then again whenever the run repairs again. Whoever is
        unknown to the ledger was told of already: that event waits, or ended for a reason that
        telling it again would not change.
        """
        for key, row in people.items():
            content = self._content(destination, row)
            mark = Mark(self.run.number, content, missing.get(key, 0))
            text = found.get(key, b"")
            if not text or Mark.loads(text).is_name:
                member = Member(key, text, mark.dumps())
                yield MemberChange(member, self._event(destination, Direction.ENTER, key, row))
                continue
            old = Mark.loads(text)
            if old.run >= self.run.number:
                continue
            event = None
            if key in missing and (self.run.repairs_again or missing[key] != old.answered_us):
                event = self._event(destination, Direction.ENTER, key, row)
            elif self.on_change and mark.differs(old):
                event = self._event(destination, Direction.CHANGE, key, row)
            yield MemberChange(Member(key, text, mark.dumps()), event)

    def _content(self, destination: str, row: dict[str, Any]) -> bytes:
        """Return the digest of the fields whose changes are delivered: all, if none are named."""
        if destination not in self._hashed:
            triggers = self.publisher.triggers_for(self.run.audience, Direction.CHANGE)
            self._hashed[destination] = [
                one.export_fields for one in triggers if one.destination == destination
            ]
        exports = self._hashed[destination]
        if not (self.on_change and exports):
            return NOT_KNOWN
        return content_hash(row, None if () in exports else set().union(*exports))

    def _event(
        self, destination: str, direction: Direction, key: str, profile: dict[str, Any]
    ) -> Event:
        at = direction, self.run.at_us
        if at not in self._entries:
            entry: dict[str, Any] = {"slug": self.run.audience, "event": direction.value}
            if direction is not Direction.CHANGE:
                entry[direction.value] = format_time(self.run.at_us)
            self._entries[at] = entry
        return Event(
            key,
            self.run.audience,
            direction,
            self.run.at_us,
            {**profile, SEGMENT_EVENTS: [self._entries[at]]},
            state=direction is not Direction.CHANGE,  # a change that was told is no longer there
            skip_hook=direction is not Direction.EXIT and destination not in self.run.known,
        )

    def _ledger(self, destination: str) -> LedgerComparison:
        run = self.run
        return LedgerComparison.of(self.publisher, destination, run.audience, run.repairs_until_us)

    def _delivered(
        self, destination: str, profile_keys: Collection[str]
    ) -> Mapping[str, LastDelivered]:
        if not profile_keys:
            return {}
        return self.store.last_delivered(destination, self.run.audience, list(profile_keys))

    def _publish(self, destination: str, changes: Sequence[MemberChange], lane: str) -> None:
        if changes:
            self.publisher.publish_members(
                destination, changes, lane, self.store.name, self.store.token
            )

    def _lane(self, destination: str) -> str:
        """Return the lane for events: backfill until the destination has had a whole run."""
        return LIVE if destination in self.run.known else BACKFILL

    def _count(self, changes: Iterable[MemberChange], *, is_first: bool) -> None:
        for member, event in changes:
            if event is None:
                continue
            enters = event.direction is Direction.ENTER
            is_known = bool(member.found) and not Mark.loads(member.found).is_name
            self.run.repaired += enters and is_known
            if is_first:
                self.run.entered += enters and not is_known
                self.run.changed += not enters

    def count(self, is_over: Callable[[], bool]) -> None:
        """Count the members who were seen, partition by partition; then decide what follows.

        Raises:
            ScanExpired: What was scanned has changed, so that who has left is not known.
        """
        partitions = self.store.partitions(self.run.destinations)
        while self.run.next_partition < len(partitions):
            partition = partitions[self.run.next_partition]
            # Some come twice. Two of a million keys have the same hash with a chance of 3e-8.
            seen, gone = set[int](), set[int]()
            for marks in self.store.pages(partition):
                found = {key: Mark.loads(mark) for key, mark in marks.items()}
                gone |= set(map(hash, self._unseen(partition, marks, found)))
                seen |= {hash(key) for key, mark in found.items() if mark.run >= self.run.number}
            self.run.seen[partition.destination] += len(seen)
            self.run.gone[partition.destination] += len(gone)
            self.run.next_partition += 1
            self.store.save(self.run)
            if is_over() and self.run.next_partition < len(partitions):
                return
        self.source.refuse_change(self.run.origin)
        self._decide()

    def _decide(self) -> None:
        run = self.run
        run.next_partition = 0
        run.doubt = run.doubts()
        if run.doubt:
            since_ms = run.last["since_ms"] if run.asks else self.store.now_ms()
            run.phase = Phase.CONFIRM
            run.last = {
                "outcome": "doubted", "doubt": run.doubt, "since_ms": since_ms, **run.results()
            }  # fmt: skip
        elif any(run.gone.values()):
            run.phase = Phase.EXITS
        else:
            self._end()
        self.store.save(run)

    def _unseen(
        self, partition: PartitionKeys, marks: Mapping[str, bytes], found: Mapping[str, Mark]
    ) -> dict[str, bytes]:
        """Return the marks of the members who did not come in this run.

        Of people whom no run ever saw, those count who are stale by the ledger. Names that are not
        needed any more are forgotten.
        """
        destination = partition.destination
        names = [key for key, mark in found.items() if mark.is_name]
        ledger, delivered = self._ledger(destination), self._delivered(destination, names)
        others = {key for key in names if not ledger.is_stale(delivered.get(key))}
        needless = [
            Member(key, marks[key], b"")
            for key in others
            if not found[key].is_needed(delivered.get(key), self.run.begun_ms)
        ]
        self._publish(destination, list(map(MemberChange, needless)), LIVE)
        return {
            key: marks[key]
            for key, mark in found.items()
            if mark.run < self.run.number and key not in others
        }

    def _end(self) -> None:
        if self.run.repairs_again:
            self.run.repaired_again_ms = self.run.begun_ms
        self.run.known = list(self.run.destinations)
        self.run.settled = self.run.origin
        self.run.allowed = 0
        self.run.end(self.store.now_ms(), outcome="done")

    def publish_exits(self, is_over: Callable[[], bool]) -> None:
        """Publish exits until the end, or until the step is over.

        Raises:
            SourceUnavailable: It can't be asked now; what was found out is written.
            ScanExpired: As `count`.
        """
        partitions = self.store.partitions(self.run.destinations)
        while self.run.next_partition < len(partitions):
            self.check_capacity(LIVE)
            if not self._settle_missing(partitions[self.run.next_partition], is_over):
                return
            self.run.next_partition += 1
            self.store.save(self.run)
        self._end()
        self.store.save(self.run)

    def _settle_missing(self, partition: PartitionKeys, is_over: Callable[[], bool]) -> bool:
        """Look at the missing members of a partition; return False if the step is over before."""
        destination = partition.destination
        changes: list[MemberChange] = []
        looked: set[str] = set()
        try:
            for marks in self.store.pages(partition):
                found = {key: Mark.loads(mark) for key, mark in marks.items()}
                for key, mark in self._unseen(partition, marks, found).items():
                    if key in looked:
                        continue
                    looked.add(key)
                    changes.append(self._second_look(destination, key, mark))
                    if is_over():
                        return False
                    if len(changes) >= _COMPARED_AT_ONCE:
                        self._write_exits(destination, changes)
                        changes = []
            return True
        finally:
            self._write_exits(destination, changes)

    def _second_look(self, destination: str, key: str, mark: bytes) -> MemberChange:
        """Return what becomes of somebody who was missing: still a member, or an exit."""
        if key not in self._looks:
            self._looks[key] = self.source.look(key)
        look = self._looks[key]
        if look.is_member:
            old = Mark.loads(mark)
            number = self.run.number
            seen = Mark(number) if old.is_name else old._replace(run=number)
            return MemberChange(Member(key, mark, seen.dumps()))
        name, _, value = key.partition(":")
        profile = {PAYLOAD_ID if name == ID else name: value, **look.profile}
        event = self._event(destination, Direction.EXIT, key, profile)
        return MemberChange(Member(key, mark, b""), event)

    def _write_exits(self, destination: str, changes: list[MemberChange]) -> None:
        if not changes:
            return
        self.source.refuse_change(self.run.origin)
        self._publish(destination, changes, LIVE)
        gone = [Mark.loads(change.member.found) for change in changes if change.event is not None]
        repaired = sum(mark.is_name for mark in gone)
        self.run.repaired += repaired
        if destination == self.run.destinations[0]:
            self.run.left += len(gone) - repaired
            self.run.stayed += len(changes) - len(gone)
        self.store.save(self.run)

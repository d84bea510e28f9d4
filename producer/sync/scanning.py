"""The first part of a run: pages of the source against the members that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from producer.events.identity import profile_key
from producer.events.payloads import SEGMENT_EVENTS, text_of
from producer.events.times import FUTURE_TOLERANCE_US, MICROSECONDS, format_time
from producer.lytics import Page, begun_us
from producer.publish import Publisher
from producer.publishing.published import MemberChange
from producer.sync.book import NOT_KNOWN, Mark, SyncBook, content_hash, uid_of
from producer.sync.ledger import LedgerComparison
from producer.sync.run import Phase, Run
from producer.sync.sources import SyncSource
from worker.contract.events import Event
from worker.contract.redis.accept import Member
from worker.contract.words import BACKFILL, LIVE, Direction
from worker.errors import (
    LyticsUnavailable,
    PayloadRefused,
    ScanExpired,
    SourceDamaged,
    UsageWrong,
)

GROUP_ROWS: Final = 1_000
UNPLACED_KEPT: Final = 100
"""The number of rows without an identity that a run keeps in the quarantine as samples."""
RESTARTS: Final = 5
"""The number of times that a scan begins anew before its run ends as incomplete."""


@dataclass(slots=True)
class Scanning:
    """Scans for one run.

    Args:
        check_room: Raises where nothing more may be published into a lane.
        on_change: Changes of members are events.
    """

    book: SyncBook
    publisher: Publisher
    source: SyncSource
    identity: str
    run: Run
    check_room: Callable[[str], None]
    on_change: bool
    _hashed: dict[str, frozenset[str] | None] = field(default_factory=dict)

    def go_on(self, is_over: Callable[[], bool]) -> None:
        """Scan until the end, or until the step is over; what was compared is saved.

        Raises:
            SourceDamaged: The source is a file, and not whole.
            LyticsUnavailable: The source can't be read now, or its clock is wrong.
        """
        while self.run.phase is Phase.SCAN:
            for destination in self.run.destinations:
                self.check_room(self._lane(destination))
            rows, last = self._group(is_over)
            if self.run.has_ended:
                self.book.save(self.run)
                return
            self._compare(rows)
            if last is None:
                self.scan_anew()
                continue
            self.run.rows += len(rows)
            self.run.start, self.run.origin = last.following, last.origin
            if not last.following:
                self.run.phase, self.run.place = Phase.COUNT, 0
                self.run.seen = dict.fromkeys(self.run.destinations, 0)
                self.run.gone = dict.fromkeys(self.run.destinations, 0)
            self.book.save(self.run)
            if is_over():
                return

    def _group(self, is_over: Callable[[], bool]) -> tuple[list[dict[str, Any]], Page | None]:
        """Gather some pages; returns their rows and the last page, None if the scan expired."""
        rows: list[dict[str, Any]] = []
        last: Page | None = None
        start = self.run.start
        while last is None or (start and len(rows) < GROUP_ROWS and not is_over()):
            try:
                page = self.source.page(start)
            except ScanExpired:
                return rows, None
            except (LyticsUnavailable, SourceDamaged):
                if last is None:
                    raise
                break
            if not start:
                self._begin(page)
            if self.run.has_ended:
                break
            if not start:
                # Before anything has this time: the next scan must be newer, also if this one dies.
                self.book.save(self.run)
            self._hear(page)
            rows += page.rows
            last, start = page, page.following
        return rows, last

    def _begin(self, page: Page) -> None:
        """Take the scan's time from the source's clock; it never goes back from run to run.

        A scan that begins anew keeps its first time, which is true of later rows too.
        """
        now_us = 1000 * self.book.now_ms()
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

    def _hear(self, page: Page) -> None:
        self.run.pages += 1
        self.run.bad += page.bad
        if page.total is None:
            return
        self.run.last_total = page.total
        if self.run.first_total < 0:
            self.run.first_total = page.total

    def scan_anew(self) -> None:
        """Begin the scan again within its run, or end the run if that was done too often."""
        self.run.scan_anew()
        if self.run.restarts > RESTARTS:
            self.run.problem = (
                f"The scan was broken off {RESTARTS + 1} times; who has joined is published, who"
                " has left is not known. The next run begins anew."
            )
            self.run.end(self.book.now_ms(), outcome="expired")
        self.book.save(self.run)

    def _compare(self, rows: Iterable[dict[str, Any]]) -> None:
        people = self._keyed(rows)
        for destination in self.run.destinations:
            found = self.book.marks(destination, list(people))
            ledger = LedgerComparison.of(
                self.publisher, destination, self.run.audience, self.run.repairs_until_us
            )
            delivered = (
                self.book.last_delivered(destination, self.run.audience, list(people))
                if ledger.enters
                else {}
            )
            missing = {key: last[1] for key, last in delivered.items() if ledger.is_missing(last)}
            changes = list(self._changes(destination, people, found, missing))
            if not changes:
                continue
            self.publisher.publish_members(
                destination, changes, self._lane(destination), self.book.name, self.book.token
            )
            self._count(changes, is_first=destination == self.run.destinations[0])

    def _keyed(self, rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        people: dict[str, dict[str, Any]] = {}
        refused: list[tuple[PayloadRefused, bytes]] = []
        for row in rows:
            try:
                key = profile_key(row, self.identity)
            except PayloadRefused as refusal:
                self.run.unplaced += 1
                if self.run.unplaced <= UNPLACED_KEPT:
                    refused.append((refusal, text_of(row)))
                continue
            before = people.get(key)
            self.run.shared += before is not None and uid_of(before) != uid_of(row)
            people[key] = row
        self.publisher.keep_rows(refused, self.run.audience)
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
        is_first = destination == self.run.destinations[0]
        for key, row in people.items():
            content = self._content(destination, row)
            mark = Mark(self.run.number, uid_of(row), content, missing.get(key, 0))
            text = found.get(key, b"")
            if not text or Mark.loads(text).is_name:
                member = Member(key, text, mark.dumps())
                yield MemberChange(member, self._event(destination, Direction.ENTER, key, row))
                continue
            old = Mark.loads(text)
            if old.run >= self.run.number:
                self.run.shared += is_first and old.uid != mark.uid
                continue
            event = None
            if key in missing and (self.run.repairs_again or missing[key] != old.answered_us):
                event = self._event(destination, Direction.ENTER, key, row)
            elif self.on_change and mark.differs(old):
                event = self._event(destination, Direction.CHANGE, key, row)
            yield MemberChange(Member(key, text, mark.dumps()), event)

    def _content(self, destination: str, row: dict[str, Any]) -> bytes:
        if not self.on_change:
            return NOT_KNOWN
        if destination not in self._hashed:
            self._hashed[destination] = self._fields_of_changes(destination)
        fields = self._hashed[destination]
        return NOT_KNOWN if fields is not None and not fields else content_hash(row, fields)

    def _fields_of_changes(self, destination: str) -> frozenset[str] | None:
        """Return the fields whose changes are delivered; None = all fields, none = no changes."""
        routes = self.publisher.recipients_for(self.run.audience, Direction.CHANGE)
        exports = [route.export_fields for route in routes if route.destination == destination]
        return None if () in exports else frozenset(name for names in exports for name in names)

    def _event(
        self, destination: str, direction: Direction, key: str, row: dict[str, Any]
    ) -> Event:
        entry: dict[str, Any] = {"slug": self.run.audience, "event": direction.value}
        if direction is not Direction.CHANGE:
            entry[direction.value] = format_time(self.run.at_us)
        return Event(
            key,
            self.run.audience,
            direction,
            self.run.at_us,
            {**row, SEGMENT_EVENTS: [entry]},
            state=direction is not Direction.CHANGE,  # a change that was told is no longer there
            skip_hook=destination not in self.run.known,
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

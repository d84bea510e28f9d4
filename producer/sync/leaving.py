"""The second part of a run: counts the members that were not seen, and publishes their exits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from producer.events.identity import ID, PAYLOAD_ID
from producer.events.payloads import SEGMENT_EVENTS
from producer.events.times import format_time
from producer.publish import Publisher
from producer.publishing.published import MemberChange
from producer.sync.book import Mark, SyncBook
from producer.sync.ledger import LedgerComparison
from producer.sync.run import Phase, Run
from producer.sync.sources import Look, SyncSource
from worker.contract.events import Event
from worker.contract.keys import PartitionKeys
from worker.contract.ledger import LastDelivered
from worker.contract.redis.accept import Entrant, Member
from worker.contract.words import LIVE, Direction

_COMPARED_AT_ONCE: Final = 50
"""The number of members that are compared before the differences are written."""


@dataclass(slots=True)
class Leaving:
    """Finds the members who have left, for one run.

    Args:
        source: For a second look.
        check_room: Raises where nothing more may be published into a lane.
    """

    book: SyncBook
    publisher: Publisher
    identity: str
    run: Run
    source: SyncSource
    check_room: Callable[[str], None]
    _looks: dict[str, Look] = field(default_factory=dict)

    def count(self, is_over: Callable[[], bool]) -> None:
        """Count the members who were seen, partition by partition; then decide what follows.

        Raises:
            ScanExpired: What was scanned has changed, so that who has left is not known.
        """
        places = self.book.places(self.run.destinations)
        while self.run.place < len(places):
            place = places[self.run.place]
            if self.run.repairs_again:
                self._learn_names(place)
            marks = dict(self.book.members(place))
            seen = sum(Mark.loads(mark).run >= self.run.number for mark in marks.values())
            self.run.seen[place.destination] += seen
            self.run.gone[place.destination] += len(self._unseen(place, marks))
            self.run.place += 1
            self.book.save(self.run)
            if is_over() and self.run.place < len(places):
                return
        self.source.refuse_change(self.run.origin)
        self._decide()

    def _decide(self) -> None:
        run = self.run
        run.place = 0
        run.doubt = run.doubts()
        if run.doubt:
            run.phase = Phase.CONFIRM
            run.last = {"outcome": "doubted", **run.results()}
        elif any(run.gone.values()):
            run.phase = Phase.EXITS
        else:
            self._end()
        self.book.save(run)

    def _learn_names(self, place: PartitionKeys) -> None:
        """Learn the names of stale people that Redis knows from delivering to them.

        They entered before the sync was there, or before it was reset.
        """
        names = self.book.reached(place, self.identity)
        known = self.book.marks(place.destination, names)
        unknown = [key for key in names if key not in known]
        ledger, delivered = self._compare(place, unknown)
        accepted_ms = self.run.begun_ms
        learned = [
            Member(key, b"", Entrant(self.book.name, key, accepted_ms).mark)
            for key in unknown
            if ledger.is_stale(delivered.get(key))
        ]
        self._write_names(place, learned)

    def _unseen(self, place: PartitionKeys, marks: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the marks of the members who did not come in this run.

        Of people whom no run ever saw, those count who are stale by the ledger. Names that are not
        needed any more are forgotten.
        """
        found = {key: Mark.loads(mark) for key, mark in marks.items()}
        names = [key for key, mark in found.items() if mark.is_name]
        ledger, delivered = self._compare(place, names)
        others = {key for key in names if not ledger.is_stale(delivered.get(key))}
        needless = [
            Member(key, marks[key], b"")
            for key in others
            if not found[key].is_needed(delivered.get(key), self.run.begun_ms)
        ]
        self._write_names(place, needless)
        return {
            key: marks[key]
            for key, mark in found.items()
            if mark.run < self.run.number and key not in others
        }

    def _compare(
        self, place: PartitionKeys, profile_keys: Sequence[str]
    ) -> tuple[LedgerComparison, Mapping[str, LastDelivered]]:
        run, destination = self.run, place.destination
        ledger = LedgerComparison.of(
            self.publisher, destination, run.audience, run.repairs_until_us
        )
        if not profile_keys:
            return ledger, {}
        return ledger, self.book.last_delivered(destination, run.audience, profile_keys)

    def _write_names(self, place: PartitionKeys, members: Sequence[Member]) -> None:
        if members:
            changes = [MemberChange(member) for member in members]
            self.publisher.publish_members(
                place.destination, changes, LIVE, self.book.name, self.book.token
            )

    def _end(self) -> None:
        if self.run.repairs_again:
            self.run.repaired_again_ms = self.run.begun_ms
        self.run.known = list(self.run.destinations)
        self.run.settled = self.run.origin
        self.run.allowed = 0
        self.run.end(self.book.now_ms(), outcome="done")

    def go_on(self, is_over: Callable[[], bool]) -> None:
        """Publish exits until the end, or until the step is over.

        Raises:
            LyticsUnavailable: It can't be asked now; what was found out is written.
            ScanExpired: As `count`.
        """
        places = self.book.places(self.run.destinations)
        while self.run.place < len(places):
            self.check_room(LIVE)
            if not self._empty(places[self.run.place], is_over):
                return
            self.run.place += 1
            self.book.save(self.run)
        self._end()
        self.book.save(self.run)

    def _empty(self, place: PartitionKeys, is_over: Callable[[], bool]) -> bool:
        """Settle the missing members of a partition; return False if the step is over before."""
        changes: list[MemberChange] = []
        try:
            for key, mark in self._missing(place):
                changes.append(self._change(key, mark))
                if is_over():
                    return False
                if len(changes) >= _COMPARED_AT_ONCE:
                    self._write(place.destination, changes)
                    changes = []
            return True
        finally:
            self._write(place.destination, changes)

    def _missing(self, place: PartitionKeys) -> Iterator[tuple[str, bytes]]:
        looked: set[str] = set()
        for marks in self.book.pages(place):
            for key, mark in self._unseen(place, marks).items():
                if key not in looked:
                    looked.add(key)
                    yield key, mark

    def _change(self, key: str, mark: bytes) -> MemberChange:
        if key not in self._looks:
            self._looks[key] = self.source.look(key)
        look = self._looks[key]
        if look.is_member:
            old = Mark.loads(mark)
            number = self.run.number
            seen = Mark(number) if old.is_name else old._replace(run=number)
            return MemberChange(Member(key, mark, seen.dumps()))
        return MemberChange(Member(key, mark, b""), self._exit(key, look.profile))

    def _exit(self, key: str, profile: dict[str, Any]) -> Event:
        field_name, _, value = key.partition(":")
        if field_name == ID:
            field_name = PAYLOAD_ID
        entry = {
            "slug": self.run.audience,
            "event": Direction.EXIT.value,
            Direction.EXIT.value: format_time(self.run.at_us),
        }
        return Event(
            key,
            self.run.audience,
            Direction.EXIT,
            self.run.at_us,
            {field_name: value, **profile, SEGMENT_EVENTS: [entry]},
            state=True,
        )

    def _write(self, destination: str, changes: list[MemberChange]) -> None:
        if not changes:
            return
        self.source.refuse_change(self.run.origin)
        self.publisher.publish_members(destination, changes, LIVE, self.book.name, self.book.token)
        gone = [Mark.loads(change.member.found) for change in changes if change.event is not None]
        repaired = sum(mark.is_name for mark in gone)
        self.run.repaired += repaired
        if destination == self.run.destinations[0]:
            self.run.left += len(gone) - repaired
            self.run.stayed += len(changes) - len(gone)
        self.book.save(self.run)

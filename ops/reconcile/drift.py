"""The steps of `reconcile`: read the source, compare, read back from Insider, repair."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from redis import Redis

from ops.audiences.moving import check_wanted, publish_all, state_event
from ops.audiences.people import Person, named_in, remembered
from ops.insider.read_back import list_of
from ops.insider.reader import InsiderReader
from ops.reconcile.comparing import (
    AudienceComparison,
    SampleResult,
    compare,
    read_back,
    sampled,
    with_names,
)
from ops.terminal.console import Progress
from producer.publish import Publisher
from producer.sources.scans import PREFIX, look_at, lytics_of
from producer.sync.ledger import LedgerComparison
from producer.sync.sources import LyticsSource
from worker.contract.events import Event
from worker.contract.redis.claim import learn_numbering
from worker.contract.settings import Settings
from worker.contract.words import Direction
from worker.errors import UsageWrong

Show = Callable[[str, int | None], AbstractContextManager[Progress]]
"""A function that opens a progress display, from a label and the total (None = unknown)."""


@dataclass(frozen=True, slots=True)
class AudienceSource:
    """The members of an audience at Lytics.

    Args:
        scan_us: The beginning of the scan, by the clock of Lytics.
    """

    scan_us: int
    members: Mapping[bytes, Person]


RepairEvent = tuple[Event, bool]
"""An event that repairs a difference, and whether the ledger has it as delivered already."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Finds and repairs the differences of one audience.

    Args:
        name: The slug or id with which Lytics is asked.
    """

    client: Redis
    settings: Settings
    publisher: Publisher
    name: str
    slug: str
    show: Show

    def read_source(self) -> AudienceSource:
        """Scan the audience at Lytics for its members."""
        looked = look_at(self.settings, self.name, self.publisher.now_us())
        found: dict[bytes, Person] = {}
        with self.show("members at Lytics", looked.members or None) as shown:
            for person in named_in(self.settings, [PREFIX + self.name]):
                found[person.digest] = person
                shown.advance()
        return AudienceSource(looked.at_us, found)

    def compare(self, source: AudienceSource, people: Sequence[str]) -> list[AudienceComparison]:
        """Compare the source with the ledger of every destination that wants the audience.

        People who may be stale come from the syncs, and from `people`.
        """
        destinations = sorted(
            {
                route.destination
                for direction in (Direction.ENTER, Direction.EXIT)
                for route in self.publisher.recipients_for(self.slug, direction)
            }
        )
        if not destinations:
            raise UsageWrong(f"No trigger wants the audience '{self.slug}'.")
        with self.show("ledgers read", None) as shown:
            found = compare(
                self.client,
                self.settings,
                self.slug,
                {
                    name: LedgerComparison.of(self.publisher, name, self.slug, source.scan_us)
                    for name in destinations
                },
                source.members,
                advance=shown.advance,
            )
        known = list(remembered(self.client, self.settings, self.slug))
        members = [person for person in known if person.as_of_us]
        members += named_in(self.settings, people)
        return [with_names(each, members, known, source.members) for each in found]

    def read_back(
        self, compared: AudienceComparison, source: AudienceSource, count: int
    ) -> SampleResult:
        """Read a sample back from Insider: people of the source, and people who are stale."""
        total = SampleResult()
        destination = self.settings.destinations[compared.destination]
        attribute = self._attribute(destination.name)
        chosen = sampled(compared, source.members, count, random.SystemRandom())
        with (
            InsiderReader(self.settings, destination) as reader,
            self.show(f"read back from {destination.name}", len(chosen)) as shown,
        ):
            steps = read_back(
                self.client,
                reader,
                chosen,
                destination=destination.name,
                partitions=learn_numbering(self.client, self.settings),
                audience=self.slug,
                attribute=attribute,
            )
            for step in steps:
                total.add(step)
                shown.advance()
        return total

    def _attribute(self, destination: str) -> str:
        """Return the attribute in which a destination lists the audience."""
        for trigger in self.settings.triggers.values():
            if trigger.destination != destination or trigger.on != "enter":
                continue
            attribute = list_of(self.settings, trigger) if trigger.wants(self.slug) else ""
            if attribute:
                return attribute
        raise UsageWrong(f"No trigger of '{destination}' keeps '{self.slug}' in a list.")

    def repairs(
        self,
        source: AudienceSource,
        found: Sequence[AudienceComparison],
        at_insider: Iterable[SampleResult],
    ) -> list[RepairEvent]:
        """Return the events that repair the differences; stale people are looked up once more."""
        entering = {one.key: (one, False) for each in found for one in each.missing}
        leaving = {one.key: (one, False) for each in found for one in each.named_stale}
        for read in at_insider:
            for kind, one in read.wrong:
                (entering if kind == "missing" else leaving)[one.key] = (one, True)
        at_us = source.scan_us
        moving = [(Direction.ENTER, *each) for each in entering.values()]
        moving += [(Direction.EXIT, *each) for each in self._really_gone(leaving.values())]
        return [(state_event(one, self.slug, way, at_us), again) for way, one, again in moving]

    def _really_gone(self, leaving: Iterable[tuple[Person, bool]]) -> Iterator[tuple[Person, bool]]:
        lytics = LyticsSource(
            lytics_of(self.settings),
            name=self.name,
            slug=self.slug,
            identity=self.settings.delivery.identity,
            fields=(),
        )
        with lytics:
            for person, again in leaving:
                if not lytics.look(person.key).is_member:
                    yield person, again

    def check_wanted(self, repairs: Sequence[RepairEvent]) -> None:
        """Refuse repairs that no trigger would deliver."""
        for direction in {event.direction for event, _ in repairs}:
            check_wanted(self.publisher, self.slug, direction)

    def publish(self, repairs: Sequence[RepairEvent]) -> int:
        """Publish repairs; return their number."""
        done = 0
        with self.show("published", len(repairs)) as shown:
            for again in (False, True):
                events = [event for event, is_again in repairs if is_again == again]
                for step in publish_all(self.publisher, events, again=again):
                    done += step
                    shown.advance(step)
        return done

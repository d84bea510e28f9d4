"""The promise of truth on a model: one profile, some audiences, every bad luck that there is.

Insider is a set of audiences. Requests may be refused for now, lost before or after they took
effect, or take effect late; the worker may vanish after sending. The rules are the real ones of
`segrelay.worker.core`; each can be taken out, and then the model has to find a wrong membership.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrelay.worker.contract.ledger import Record, pack, unpack
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import (
    LedgerEvent,
    contest,
    judge,
    knowledge,
    with_delivered,
    with_raised,
    with_tried,
    with_whole_list,
)
from tests.ledger_keys import ledger_event
from tests.nightly import amount

LATE = 5
ENTER, EXIT, EXIT_EVENT = 1, 2, 3


@dataclass(frozen=True)
class Rules:
    late: bool = True
    ask_before_each_request: bool = True
    any_trigger: bool = True
    correct_lists: bool = True
    whole_list: bool = True


@dataclass(frozen=True)
class Waiting:
    number: int
    event: LedgerEvent
    segments: frozenset[int]


@dataclass
class Intent:
    numbers: frozenset[int]
    until: int


@dataclass
class World:
    rng: random.Random
    rules: Rules
    overwrite: bool
    inside: set[int] = field(default_factory=set)
    record: Record = field(default_factory=Record)
    clock: int = 0
    stream: list[Waiting] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    late: list[tuple[int, tuple[Waiting, ...], Record]] = field(default_factory=list)

    def tick(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.clock += 1
            due = [item for item in self.late if item[0] <= self.clock]
            self.late = [item for item in self.late if item[0] > self.clock]
            for _, group, record in due:
                self.apply(group, record)

    def apply(self, group: tuple[Waiting, ...], record: Record) -> None:
        """Let a request take effect, in the order of its events' times."""
        for waiting in sorted(group, key=lambda waiting: waiting.event.header.time_us):
            self.apply_one(waiting, record)

    def apply_one(self, waiting: Waiting, record: Record) -> None:
        event = waiting.event
        if event.key[1] == EXIT_EVENT:
            return
        if event.header.direction is Direction.EXIT:
            self.inside.discard(event.key[0])
        elif self.overwrite:
            known = knowledge(record, event, frozenset)
            if self.rules.correct_lists:
                listed = (waiting.segments | known.inside) - known.outside | {event.key[0]}
            else:
                listed = waiting.segments
            self.inside = set(listed)
        else:
            self.inside.add(event.key[0])

    def may_go(self, waiting: Waiting) -> bool:
        self.intents = [intent for intent in self.intents if intent.until > self.clock]
        if not self.rules.late:
            return True
        return all(waiting.number in intent.numbers for intent in self.intents)

    def settle(self, *gone: Waiting) -> None:
        numbers = {waiting.number for waiting in gone}
        self.stream = [waiting for waiting in self.stream if waiting.number not in numbers]

    def verdict(self, waiting: Waiting) -> str | None:
        event = waiting.event
        skip = judge(self.record, event)
        if skip == "superseded" and not self.rules.any_trigger:
            own = self.record.items.get(event.key)
            skip = "superseded" if own and own.delivered_us > event.header.time_us else None
        return skip

    def drain(self) -> None:
        size = self.rng.randint(1, 6)
        batch = [waiting for waiting in self.stream if self.may_go(waiting)][:size]
        going = []
        for waiting in batch:
            skip = self.verdict(waiting)
            if skip is None:
                going.append(waiting)
                continue
            if skip == "already_there":
                self.record = with_raised(self.record, waiting.event)
            self.settle(waiting)
        result = contest([(w.event.key[0], w.event, w) for w in going])
        going = [winner for winner, _ in result]
        superseded = {winner.number: older for winner, older in result}
        frozen = self.record
        while going:
            waiting, *going = going
            if self.rules.ask_before_each_request:
                skip = self.verdict(waiting)
                if skip:
                    if skip == "already_there":
                        self.record = with_raised(self.record, waiting.event)
                    self.settle(waiting)
                    continue
                if not self.may_go(waiting):
                    continue
            record = self.record if self.rules.ask_before_each_request else frozen
            group = self.sharing(waiting, going, record)
            going = [each for each in going if each not in group]
            superseded_by_them = tuple(older for each in group for older in superseded[each.number])
            if not self.send(group, superseded_by_them, record):
                return

    def sharing(self, first: Waiting, going: list[Waiting], record: Record) -> tuple[Waiting, ...]:
        """Return what shares a user object with the first, which the drain has to send next."""
        group = [first]
        as_if = with_delivered(record, first.event)
        for waiting in going:
            same_path = waiting.event.header.direction is first.event.header.direction
            only_adds = not (self.overwrite and waiting.event.header.direction is Direction.ENTER)
            if not (same_path and only_adds) or judge(as_if, waiting.event):
                continue
            if self.may_go(waiting) and self.rng.random() < 0.8:
                group.append(waiting)
                as_if = with_delivered(as_if, waiting.event)
        return tuple(group)

    def send(
        self, group: tuple[Waiting, ...], superseded: tuple[Waiting, ...], record: Record
    ) -> bool:
        """Send one request; False if the worker vanished."""
        fate = self.rng.choice(
            ["taken"] * 6 + ["not now", "lost before", "lost after", "late", "vanished", "refused"]
        )
        self.tick(self.rng.randint(0, 1))
        if fate == "taken":
            self.apply(group, record)
            for waiting in group:
                self.record = self.listed(with_delivered(self.record, waiting.event), waiting)
            self.settle(*group, *superseded)
        elif fate == "lost after":
            self.apply(group, record)
            self.intent_in_doubt(group)
        elif fate == "lost before":
            self.intent_in_doubt(group)
        elif fate == "late":
            self.late.append((self.clock + self.rng.randint(1, LATE - 1), group, record))
            self.intent_in_doubt(group)
        elif fate == "vanished":
            if self.rng.random() < 0.5:
                self.late.append((self.clock + self.rng.randint(1, LATE - 1), group, record))
            self.intent_in_doubt(group)
            return False
        return True

    def intent_in_doubt(self, group: tuple[Waiting, ...]) -> None:
        numbers = frozenset(waiting.number for waiting in group)
        self.intents.append(Intent(numbers, self.clock + LATE))
        for waiting in group:
            self.record = self.listed(with_tried(self.record, waiting.event), waiting)

    def listed(self, record: Record, waiting: Waiting) -> Record:
        """A body that replaces the list told of every audience, as of its event's time."""
        if not (self.overwrite and self.rules.whole_list and waiting.event.key[1] == ENTER):
            return record
        return with_whole_list(record, waiting.event.header.time_us)


def history(rng: random.Random, rules: Rules, *, overwrite: bool) -> tuple[set[int], set[int]]:
    """Play one history; returns what Insider holds and what it should hold."""
    audiences = rng.randint(1, 3)
    directions = (Direction.ENTER, Direction.EXIT)
    events = [
        (audience, rng.randint(1, 5), rng.choice(directions))
        for audience in range(1, audiences + 1)
        for _ in range(rng.randint(1, 4))
    ]
    waiting: list[Waiting] = []
    numbers = itertools.count()
    for audience, time_us, direction in events:
        segments = frozenset(
            a for a in range(1, audiences + 1) if truth(events, a, until=time_us) is Direction.ENTER
        )
        triggers = (ENTER,) if direction is Direction.ENTER else (EXIT, EXIT_EVENT)
        for trigger in triggers:
            # A scan reads what holds at that time: a state event tells the truth.
            is_state = rng.random() < 0.2 and truth(events, audience, until=time_us) is direction
            event = ledger_event(time_us, direction, trigger, audience, state=is_state)
            waiting += [
                Waiting(next(numbers), event, segments) for _ in range(rng.choice([1, 1, 1, 2]))
            ]
    rng.shuffle(waiting)
    world = World(rng, rules, overwrite)
    steps = 0
    while waiting or world.stream or world.late:
        steps += 1
        arrivals = rng.randint(0, 4)
        world.stream += waiting[:arrivals]
        del waiting[:arrivals]
        world.drain()
        world.record = unpack(pack(world.record))
        world.tick(rng.randint(0, 3))
        assert steps < 5_000, "it never comes to an end"
    should = {
        audience
        for audience in range(1, audiences + 1)
        if truth(events, audience) is Direction.ENTER
    }
    return world.inside, should


def truth(
    events: list[tuple[int, int, Direction]], audience: int, until: int = 10**9
) -> Direction | None:
    """Return the newest direction: the latest time, at equal times the exit."""
    times = [
        (time_us, direction is Direction.EXIT, direction)
        for about, time_us, direction in events
        if about == audience and time_us <= until
    ]
    return max(times, key=lambda item: item[:2])[2] if times else None


@given(seed=st.integers(0, 2**32), overwrite=st.booleans())
@settings(max_examples=amount(400, nightly=20_000))
def test_membership_is_what_the_newest_event_says(seed: int, overwrite: bool) -> None:
    holds, should = history(random.Random(seed), Rules(), overwrite=overwrite)

    assert holds == should


@pytest.mark.parametrize(
    ("rule", "overwrite", "first"),
    [
        ("late", False, 0),
        ("ask_before_each_request", True, 0),
        ("any_trigger", False, 0),
        ("correct_lists", True, 0),
        ("whole_list", True, 2_500),  # rare: it takes a second to get there
    ],
)
def test_the_model_finds_a_wrong_membership_where_a_rule_is_taken_out(
    rule: str, overwrite: bool, first: int
) -> None:
    rules = replace(Rules(), **{rule: False})

    assert any(
        holds != should
        for holds, should in (
            history(random.Random(seed), rules, overwrite=overwrite)
            for seed in range(first, first + 3_000)
        )
    )

"""Histories: what happens, when, to whom, and what breaks; made from a seed.

A history is a list of acts, each of which can be left out: so one that fails is shrunk to the few
acts that it takes.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import Answer
from tests.conformance.drain.fake_insider import (
    DELETE,
    UPSERT,
    Reply,
    Sending,
    failed,
    names_nobody,
    refused,
    silent,
    taken,
    unreachable,
)
from tests.conformance.drain.processes import LEASE_SECONDS
from tests.conformance.drain.world import LATE_SECONDS, TRIGGERS, event

AUDIENCES = ("vip", "new", "far")
SHARING = {
    f"{direction.value}-{audience}": (direction, url)
    for direction, url in ((Direction.ENTER, UPSERT), (Direction.EXIT, DELETE))
    for audience in AUDIENCES
}
"""A trigger for each audience and direction, as whoever has many audiences has them."""


class Happened(NamedTuple):
    """What Lytics tells of a person; the time in seconds since some day."""

    person: str
    audience: str
    at: int
    direction: Direction


@dataclass(frozen=True)
class Act:
    """One thing that happens.

    Args:
        does: `publish`, `answer`, `break`, `lose` (a call of Redis), `forget` (a wake-up), or what
            an operator or Redis does.
        at: Seconds since the beginning; of an `answer` the number of the request, of a `break`, a
            `lose` and a `forget` the number of the drain.
        what: As `does` needs it.
    """

    does: str
    at: float
    what: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Frame:
    """What a history begins with, and what does not change in it.

    Args:
        sharing: Each audience has triggers of its own.
        enters: Else the triggers of an entrance.
    """

    sharing: bool
    enters: tuple[str, ...]
    on_ambiguous: str
    rate: str
    batch_entries: int
    in_flight: int
    answer_seconds: float

    @property
    def triggers(self) -> dict[str, tuple[Direction, str]]:
        return SHARING if self.sharing else TRIGGERS


class History(NamedTuple):
    """All acts of a history, in any order."""

    frame: Frame
    acts: tuple[Act, ...]


def truth(events: Sequence[Happened], until: int = 10**9) -> Direction | None:
    """Return the newest direction: the latest time, at equal times the exit."""
    newest = max(
        (e for e in events if e.at <= until),
        key=lambda e: (e.at, e.direction is Direction.EXIT),
        default=None,
    )
    return newest and newest.direction


def history_of(seed: int) -> History:
    """Return the history of a seed."""
    rng = random.Random(seed)
    enters = rng.choice([("enter",), ("overwrite",), ("enter", "overwrite"), (), ()])
    frame = Frame(
        sharing=not enters,
        enters=enters,
        on_ambiguous=rng.choice(["resend", "resend", "dead_letter"]),
        rate=rng.choice(["1000000/min", "1000000/min", "30/min"]),
        batch_entries=rng.choice([2, 4, 1_000]),
        in_flight=rng.choice([1, 4, 4]),
        answer_seconds=rng.choice([0.02, 0.02, 2.0]),
    )
    people = [f"p{number}" for number in range(rng.choice([1, 1, 2, 5]))]
    calm = rng.random() < 0.1
    published = list(_published(rng, frame, people))
    moments = [act.at + seconds for act in published for seconds in (0.01, 0.05, 1.0, 10.0)]
    acts = [
        *published,
        *(() if calm else _answers(rng)),
        *(() if calm else _breaks(rng)),
        *(() if calm else _commands(rng, frame, people, moments)),
        *(() if calm else _of_redis(rng, moments)),
    ]
    return History(frame, tuple(acts))


def _published(rng: random.Random, frame: Frame, people: Sequence[str]) -> Iterator[Act]:
    """Yield what arrives: several deliveries at once, some of them twice."""
    waiting = [each for person in people for each in _deliveries(rng, frame, person)]
    rng.shuffle(waiting)
    at, position = 0.0, 0
    while waiting:
        count = rng.randint(1, 6)
        some, waiting = waiting[:count], waiting[count:]
        is_job = rng.random() < 0.25
        position += 1
        if is_job:
            some = [(happened, one._replace(lane="job.import")) for happened, one in some]
        fate = rng.choice(["", "", "", "before", "after"])
        yield Act("publish", at, (tuple(some), position if is_job else None, fate))
        at += rng.choice([0.0, 0.1, 3.0, 40.0])


def _deliveries(
    rng: random.Random, frame: Frame, person: str
) -> Iterator[tuple[Happened, NewDelivery]]:
    happened = [
        Happened(person, audience, rng.randint(1, 5), rng.choice([Direction.ENTER, Direction.EXIT]))
        for audience in AUDIENCES[: rng.randint(1, 3)]
        for _ in range(rng.randint(1, 4))
    ]

    def about(audience: str) -> list[Happened]:
        return [each for each in happened if each.audience == audience]

    for each in happened:
        _, audience, at, direction = each
        segments = [a for a in AUDIENCES if truth(about(a), at) is Direction.ENTER]
        exits = () if frame.sharing else ("exit", "exit-event")
        own = (f"{direction.value}-{audience}",)
        is_state = rng.random() < 0.2 and truth(about(audience), at) is direction
        for trigger in (frame.enters if direction is Direction.ENTER else exits) or own:
            for _ in range(rng.choice([1, 1, 1, 2])):
                one = event(
                    person, audience, trigger,
                    at=at, lane=rng.choice(["live", "backfill"]), state=is_state,
                    segments=segments, direction=direction,
                )  # fmt: skip
                yield each, one


def _answers(rng: random.Random) -> Iterator[Act]:
    """Yield what Insider does with some requests; it takes all others.

    Few kinds of answers come together more often than if each history had all of them.
    """
    kinds = rng.sample(list(ANSWERS), rng.choice([1, 2, 4, len(ANSWERS)]))
    share = rng.choice([0.2, 0.6])
    for number in range(rng.choice([0, 6, 20, 40])):
        if rng.random() < share:
            yield Act("answer", number, (rng.choice(kinds), rng.random(), rng.random()))


def _breaks(rng: random.Random) -> Iterator[Act]:
    """Yield what happens to processes, and to what they ask of Redis."""
    for _ in range(rng.choice([0, 2, 6])):
        what = rng.choice(["kill", "kill", 3.0, LEASE_SECONDS + 2.0, LEASE_SECONDS + 60.0])
        yield Act("break", rng.randint(0, 8), (rng.randint(1, 25), what))
    for _ in range(rng.choice([0, 0, 2, 6])):
        fate = rng.choice(["before", "after"])
        yield Act("lose", rng.randint(0, 8), (rng.randint(1, 25), fate))
    for _ in range(rng.choice([0, 0, 2])):
        yield Act("forget", rng.randint(0, 12))


def _commands(
    rng: random.Random, frame: Frame, people: Sequence[str], moments: Sequence[float]
) -> Iterator[Act]:
    """Yield what operators do; they resume what is paused in any case."""
    for _ in range(rng.choice([0, 1, 1, 3])):
        at, trigger = rng.choice(moments), rng.choice(list(frame.triggers))
        match rng.randint(0, 5):
            case 0 | 1:
                yield Act("pause", at, (trigger,))
            case 2:
                yield Act("discard", at, (rng.choice(["", trigger, trigger]),))
            case 3:
                yield Act("replay", at + 60.0)
            case 4:
                yield Act("discard_dead_letters", at + 60.0)
            case _:
                yield Act("erase", at, (rng.choice(people),))


def _of_redis(rng: random.Random, moments: Sequence[float]) -> Iterator[Act]:
    for _ in range(rng.choice([0, 0, 0, 1])):
        yield Act("restart", rng.choice(moments), (rng.choice([0.0, 2.0, 20.0]),))
    for _ in range(rng.choice([0, 0, 1])):
        yield Act("jump", rng.choice(moments), (rng.choice([-36_000.0, -20.0, 20.0]),))


def _late(sending: Sending, one: float, two: float) -> float:
    del sending, two
    return (0.01, 5.0, 15.0, LATE_SECONDS - 1.0)[int(4 * one)]


def _slow(sending: Sending, one: float, two: float) -> Reply:
    reply = taken(sending)
    reply.answer_seconds = (0.02, 1.0, 5.0, 15.0)[int(4 * one)]
    reply.effect_seconds = reply.answer_seconds if two < 0.5 else 0.0
    return reply


def _refuses_one(sending: Sending, one: float, two: float) -> Reply:
    del two
    at = int(one * len(sending.users))
    return taken(sending, {f"users.{at}.attributes.age": ["not right"]})


def _unreadable(sending: Sending, one: float, two: float) -> Reply:
    del one, two
    reply = taken(sending)
    reply.answer, reply.outcome = Answer(200, b"<html>"), "unsure"
    return reply


ANSWERS: dict[str, Callable[[Sending, float, float], Reply]] = {
    "slow": _slow,
    "refuses one": _refuses_one,
    "names nobody": lambda s, one, _: names_nobody(s, int(one * len(s.users))),
    "unreadable": _unreadable,
    "429": lambda *_: refused(429),
    "400": lambda *_: refused(400, "something is wrong"),
    "413": lambda *_: refused(413),
    "401": lambda *_: refused(401, "Partner is invalid."),
    "unreachable": lambda *_: unreachable(),
    "500": lambda *_: failed(500),
    "502, applied": lambda *a: failed(502, applied=True, effect_seconds=_late(*a)),
    "silent": lambda *_: silent(),
    "silent, applied": lambda s, one, two: silent(
        applied=True, effect_seconds=0.0 if two < 0.2 else 20.0 + _late(s, one, two)
    ),
}
"""What Insider may do with a request; two numbers below 1 say what else there is to choose."""

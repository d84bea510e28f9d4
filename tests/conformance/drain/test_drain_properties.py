"""The promises, whatever comes, in whatever order, and whatever breaks meanwhile.

Two processes drain one partition at the same time; each can be killed or stopped at any step.
Insider answers or fails in every way that there is, and what it fails at may take effect late.
"""

import asyncio
import random
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import Answer
from tests.conformance.drain.fake_insider import (
    DELETE,
    UPSERT,
    NamesNobody,
    Sending,
    failed,
    names_nobody,
    refused,
    silent,
    taken,
    unreachable,
)
from tests.conformance.drain.processes import LEASE_SECONDS
from tests.conformance.drain.world import LATE_SECONDS, TRIGGERS, World, did_nothing, event
from tests.nightly import amount

AUDIENCES = ["vip", "new", "far"]
LONGEST_SECONDS = 20_000.0


class BadLuck:
    """What Insider does, while there is bad luck left; then it works."""

    def __init__(self, rng: random.Random, amount: int) -> None:
        self._rng = rng
        self._amount = amount

    def responds(self, sending: Sending) -> Any:
        rng = self._rng
        if self._amount <= 0 or rng.random() < 0.5:
            reply = taken(sending)
            reply.answer_seconds = rng.choice([0.02, 0.02, 1.0, 15.0])
            reply.effect_seconds = rng.choice([0.0, reply.answer_seconds])
            return reply
        self._amount -= 1
        late = rng.choice([0.0, 0.01, 5.0, LATE_SECONDS - 1.0])
        match rng.randint(0, 11):
            case 11:
                return names_nobody(sending, rng.randrange(len(sending.users)))
            case 10:
                at = rng.randrange(len(sending.users))
                return taken(sending, {f"users.{at}.attributes.age": ["not right"]})
            case 0:
                return refused(429)
            case 1:
                return refused(400, "something is wrong")
            case 2:
                return refused(413)
            case 3:
                return unreachable()
            case 4:
                return failed(500)
            case 5:
                return failed(502, applied=True, effect_seconds=late)
            case 6:
                return silent()
            case 7:
                return silent(applied=True, effect_seconds=rng.choice([0.0, 15.0, 20.0 + late]))
            case 8:
                reply = taken(sending)
                reply.answer, reply.outcome = Answer(200, b"<html>"), "unsure"
                return reply
            case _:
                return refused(401, "Partner is invalid.")


def truth(events: list[Any], audience: str, until: int = 10**9) -> Direction | None:
    """Return the newest direction: the latest time, at equal times the exit."""
    about = [e for e in events if e[0] == audience and e[1] <= until]
    if not about:
        return None
    return max(about, key=lambda e: (e[1], e[2] is Direction.EXIT))[2]


SHARING = {
    f"{direction.value}-{audience}": (direction, url)
    for direction, url in ((Direction.ENTER, UPSERT), (Direction.EXIT, DELETE))
    for audience in AUDIENCES
}
"""A trigger for each audience and direction, as whoever has many audiences has them."""


def deliveries_of(
    rng: random.Random, person: str, enters: list[str]
) -> tuple[list[Any], list[Any]]:
    """Return what happened to a person, and its deliveries, some of them twice.

    Args:
        rng: Decides.
        person: Who.
        enters: The triggers of an entrance; none = each audience has its own.
    """
    happened = [
        (audience, rng.randint(1, 5), rng.choice([Direction.ENTER, Direction.EXIT]))
        for audience in AUDIENCES[: rng.randint(1, 3)]
        for _ in range(rng.randint(1, 4))
    ]
    deliveries = []
    for audience, at, direction in happened:
        segments = [a for a in AUDIENCES if truth(happened, a, at) is Direction.ENTER]
        exits = ["exit", "exit-event"] if enters else []
        own = [f"{direction.value}-{audience}"]
        triggers = (enters if direction is Direction.ENTER else exits) or own
        is_state = rng.random() < 0.2 and truth(happened, audience, at) is direction
        for trigger in triggers:
            for _ in range(rng.choice([1, 1, 1, 2])):
                lane = rng.choice(["live", "backfill", "job.may"])
                deliveries.append(
                    event(
                        person, audience, trigger,
                        at=at, lane=lane, state=is_state, segments=segments, direction=direction,
                    )
                )  # fmt: skip
    return happened, deliveries


class History:
    """One history: what happens, to whom, and what breaks."""

    def __init__(self, redis: Redis, seed: int, on_ambiguous: str = "resend") -> None:
        self.rng = random.Random(seed)
        bad_luck = BadLuck(self.rng, self.rng.choice([0, 3, 8, 20]))
        enters = self.rng.choice([["enter"], ["overwrite"], ["enter", "overwrite"], [], []])
        self.triggers = TRIGGERS if enters else SHARING
        self.world = World(
            redis,
            bad_luck.responds,
            triggers=self.triggers,
            on_ambiguous=on_ambiguous,
            api=NamesNobody(),
        )
        # Where a batch holds little, others are prepared while it is delivered.
        entries = self.rng.choice([2, 4, self.world.limits.batch_entries])
        self.world.limits = replace(self.world.limits, batch_entries=entries)
        self.breaks = self.rng.choice([0, 0, 2, 6])
        self.happened = {}
        self.waiting = []
        for number in range(self.rng.choice([1, 2, 3, 5])):
            happened, deliveries = deliveries_of(self.rng, f"p{number}", enters)
            self.happened[f"p{number}@example.com"] = happened
            self.waiting += deliveries
        self.rng.shuffle(self.waiting)

    async def play(self) -> None:
        await asyncio.gather(self._arrive(), self._person(), self._work(), self._work())
        await asyncio.sleep(3 * LATE_SECONDS)
        assert self.world.pending_effects == 0

    def is_over(self) -> bool:
        assert self.world.loop.time() < LONGEST_SECONDS, "it never comes to an end"
        return not self.waiting and not self.world.store.waiting()

    async def _arrive(self) -> None:
        while self.waiting:
            some = self.rng.randint(1, 6)
            arriving, self.waiting = self.waiting[:some], self.waiting[some:]
            self.world.put_now(*arriving)
            # A drain hears at once of some live work, and not of other.
            self.world.live_calls += self.rng.choice([0, 1])
            await asyncio.sleep(self.rng.choice([0.0, 0.1, 3.0, 40.0]))

    async def _person(self) -> None:
        """Pause a trigger now and then, and resume what is paused."""
        while not self.is_over():
            await asyncio.sleep(self.rng.choice([1.0, 10.0]))
            self.world.paused.update(
                dict.fromkeys(self.rng.choices(list(self.triggers), k=1), "by hand")
            )
            await asyncio.sleep(60.0)
            self.world.paused.clear()
            await self.world.gate.resume()

    async def _work(self) -> None:
        """Drain again and again, more and more rarely while nothing can be done."""
        in_vain = 0
        while not self.is_over():
            ended = await self.world.a_drain(self._plan())
            in_vain = min(in_vain + 1, 12) if ended and did_nothing(ended[0]) else 0
            await asyncio.sleep(self.rng.choice([0.01, 0.3, 1.0]) * (in_vain or 1))

    def _plan(self) -> dict[int, Any]:
        """Return at which of a process' steps something happens to it."""
        if self.breaks <= 0 or self.rng.random() < 0.5:
            return {}
        self.breaks -= 1
        what = self.rng.choice(["kill", "kill", 3.0, LEASE_SECONDS + 2.0, LEASE_SECONDS + 60.0])
        return {self.rng.randint(1, 40): what}

    def wrong(self) -> list[Any]:
        """Return which memberships are not what the newest events say; the dead are left out."""
        dead_letters = [orjson.loads(text) for text in self.world.store.dead_letters.values()]
        dead = {
            (dead_letter["profile"]["email"], dead_letter["audience"])
            for dead_letter in dead_letters
        }
        return [
            (email, audience, happened)
            for email, happened in self.happened.items()
            for audience in {audience for audience, _, _ in happened}
            if (truth(happened, audience) is Direction.ENTER)
            != (audience in self.world.insider.lists[email])
            and (email, audience) not in dead
        ]


def play(redis: Redis, seed: int, on_ambiguous: str = "resend") -> History:
    history = History(redis, seed, on_ambiguous)
    with history.world as world:
        world.run(history.play())
    return history


@given(seed=st.integers(0, 2**32))
@settings(max_examples=amount(25, nightly=2_000))
def test_whatever_breaks_insider_holds_what_the_newest_events_say(redis: Redis, seed: int) -> None:
    history = play(redis, seed)

    assert history.wrong() == []
    assert history.world.count("accepted") == sum(
        history.world.count(kind) for kind in ("delivered", "skipped", "dead")
    )


@given(seed=st.integers(0, 2**32))
@settings(max_examples=amount(25, nightly=2_000))
def test_where_a_person_decides_nothing_is_sent_again_that_may_have_been_applied(
    redis: Redis, seed: int
) -> None:
    history = play(redis, seed, "dead_letter")

    # That nothing was sent twice, the world has checked at each request.
    assert history.wrong() == []
    assert history.world.store.waiting() == 0

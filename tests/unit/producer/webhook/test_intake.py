"""The intake: grouping, and that no body costs its neighbours anything."""

import asyncio
from collections.abc import Sequence
from itertools import islice

import pytest

from segrelay.producer.publishing.published import Published
from segrelay.producer.webhook.bodies import Body, BodyTooLarge
from segrelay.producer.webhook.intake import GROUP_BODIES, Intake
from segrelay.worker.errors import RedisUnavailable

POISON = b"poison"


class Shelf:
    """Stores in memory; fails for groups that hold the poison, and while it is closed.

    It takes at most three payloads of a body at once, and of at most `most` bodies.
    """

    def __init__(self, most: int = GROUP_BODIES) -> None:
        self.groups: list[list[bytes]] = []
        self.is_closed = False
        self.most = most
        self.writes_until_it_closes = 1_000_000

    def store(self, bodies: Sequence[Body]) -> int:
        if self.is_closed or self.writes_until_it_closes == 0:
            raise RedisUnavailable("It is closed.")
        if POISON in [body.text for body in bodies]:
            raise ValueError("A bug that this body meets.")
        self.writes_until_it_closes -= 1
        self.groups.append([body.text for body in bodies[: self.most]])
        for body in bodies[: self.most]:
            taken = list(islice(body.payloads(), 3))
            body.advance(Published(accepted=len(taken)))
        return min(self.most, len(bodies))


async def take_all(intake: Intake, bodies: Sequence[bytes]) -> list[Published | BaseException]:
    taken = [intake.take(Body(text, most=100)) for text in bodies]
    return await asyncio.gather(*taken, return_exceptions=True)


def test_what_arrives_together_shares_a_write() -> None:
    shelf = Shelf()

    asyncio.run(take_all(Intake(shelf.store), [b"x"] * 50))

    assert len(shelf.groups) <= 2


def test_each_body_gets_its_own_answer() -> None:
    answers = asyncio.run(take_all(Intake(Shelf().store), [b"1", b"[1, 2]", b"[1, 2, 3]"]))

    assert answers == [Published(accepted=1), Published(accepted=2), Published(accepted=3)]


def test_a_body_of_many_portions_is_answered_when_all_of_them_are_stored() -> None:
    many = b"[" + b",".join([b"1"] * 100) + b"]"

    answers = asyncio.run(take_all(Intake(Shelf().store), [many, b"1", many]))

    assert answers == [Published(accepted=100), Published(accepted=1), Published(accepted=100)]


def test_what_comes_while_a_large_body_is_stored_waits_for_one_portion_only() -> None:
    shelf = Shelf()
    many = b"[" + b",".join([b"1"] * 99) + b"]"

    async def play() -> None:
        intake = Intake(shelf.store)
        large = asyncio.ensure_future(intake.take(Body(many)))
        await asyncio.sleep(0)  # the first write begins
        await asyncio.sleep(0)
        await intake.take(Body(b"2"))
        assert not large.done()
        await large

    asyncio.run(play())

    assert [group for group in shelf.groups if b"2" in group] == [[many, b"2"]]


def test_a_body_whose_later_portion_can_not_be_stored_is_to_be_sent_again() -> None:
    shelf = Shelf()
    shelf.writes_until_it_closes = 2

    (answer,) = asyncio.run(take_all(Intake(shelf.store), [b"[1, 2, 3, 4, 5, 6, 7, 8, 9]"]))

    assert isinstance(answer, RedisUnavailable)
    assert len(shelf.groups) == 2


def test_bodies_that_a_write_did_not_reach_come_with_the_next_in_their_order() -> None:
    shelf = Shelf(most=2)

    asyncio.run(take_all(Intake(shelf.store), [b"1", b"2", b"3", b"4", b"5"]))

    assert [text for group in shelf.groups for text in group] == [b"1", b"2", b"3", b"4", b"5"]


def test_a_body_of_too_many_payloads_is_refused_alone() -> None:
    many = b"[" + b",".join([b"{}"] * 101) + b"]"

    answers = asyncio.run(take_all(Intake(Shelf().store), [b"1", many, b"2"]))

    assert [type(answer) for answer in answers] == [Published, BodyTooLarge, Published]


def test_a_group_is_bounded() -> None:
    shelf = Shelf()

    asyncio.run(take_all(Intake(shelf.store), [b"x"] * (GROUP_BODIES + 1)))

    assert max(map(len, shelf.groups)) == GROUP_BODIES


def test_a_body_that_meets_a_bug_fails_alone() -> None:
    answers = asyncio.run(take_all(Intake(Shelf().store), [b"a", POISON, b"bb"]))

    assert [type(answer) for answer in answers] == [Published, ValueError, Published]


def test_when_nothing_can_be_stored_everybody_is_told() -> None:
    shelf = Shelf()
    shelf.is_closed = True

    answers = asyncio.run(take_all(Intake(shelf.store), [b"1", b"2"]))

    assert [type(answer) for answer in answers] == [RedisUnavailable, RedisUnavailable]


def test_closing_stores_what_still_waits() -> None:
    shelf = Shelf()

    async def play() -> None:
        intake = Intake(shelf.store)
        waiting = [asyncio.ensure_future(intake.take(Body(b"1"))) for _ in range(3)]
        await asyncio.sleep(0)
        await intake.close()
        await asyncio.gather(*waiting)

    asyncio.run(play())

    assert sum(map(len, shelf.groups)) == 3


def test_an_intake_that_has_failed_goes_on() -> None:
    shelf = Shelf()

    async def play() -> Published:
        intake = Intake(shelf.store)
        shelf.is_closed = True
        with pytest.raises(RedisUnavailable):
            await intake.take(Body(b"1"))
        shelf.is_closed = False
        return await intake.take(Body(b"1"))

    assert asyncio.run(play()) == Published(accepted=1)

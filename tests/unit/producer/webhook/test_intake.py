"""The intake: grouping, and that no body costs its neighbours anything."""

import asyncio
from collections.abc import Sequence

import pytest

from producer.webhook.intake import GROUP_BODIES, Intake, Stored
from worker.errors import RedisUnavailable

POISON = b"poison"


class Shelf:
    """Stores in memory; fails for groups that hold the poison, and while it is closed."""

    def __init__(self) -> None:
        self.groups: list[list[bytes]] = []
        self.is_closed = False

    def store(self, bodies: Sequence[bytes]) -> list[Stored]:
        if self.is_closed:
            raise RedisUnavailable("It is closed.")
        if POISON in bodies:
            raise ValueError("A bug that this body meets.")
        self.groups.append(list(bodies))
        return [Stored(len(body), 0) for body in bodies]


async def take_all(intake: Intake, bodies: Sequence[bytes]) -> list[Stored | BaseException]:
    return await asyncio.gather(*map(intake.take, bodies), return_exceptions=True)


def test_what_arrives_together_shares_a_write() -> None:
    shelf = Shelf()

    asyncio.run(take_all(Intake(shelf), [b"x"] * 50))

    assert len(shelf.groups) <= 2


def test_each_body_gets_its_own_answer() -> None:
    answers = asyncio.run(take_all(Intake(Shelf()), [b"a", b"bb", b"ccc"]))

    assert answers == [Stored(1, 0), Stored(2, 0), Stored(3, 0)]


def test_a_group_is_bounded() -> None:
    shelf = Shelf()

    asyncio.run(take_all(Intake(shelf), [b"x"] * (GROUP_BODIES + 1)))

    assert max(map(len, shelf.groups)) == GROUP_BODIES


def test_a_body_that_meets_a_bug_fails_alone() -> None:
    answers = asyncio.run(take_all(Intake(Shelf()), [b"a", POISON, b"bb"]))

    assert [type(answer) for answer in answers] == [Stored, ValueError, Stored]


def test_when_nothing_can_be_stored_everybody_is_told() -> None:
    shelf = Shelf()
    shelf.is_closed = True

    answers = asyncio.run(take_all(Intake(shelf), [b"a", b"b"]))

    assert [type(answer) for answer in answers] == [RedisUnavailable, RedisUnavailable]


def test_closing_stores_what_still_waits() -> None:
    shelf = Shelf()

    async def play() -> None:
        intake = Intake(shelf)
        waiting = [asyncio.ensure_future(intake.take(b"x")) for _ in range(3)]
        await asyncio.sleep(0)
        await intake.close()
        await asyncio.gather(*waiting)

    asyncio.run(play())

    assert sum(map(len, shelf.groups)) == 3


def test_an_intake_that_has_failed_goes_on() -> None:
    shelf = Shelf()

    async def play() -> Stored:
        intake = Intake(shelf)
        shelf.is_closed = True
        with pytest.raises(RedisUnavailable):
            await intake.take(b"a")
        shelf.is_closed = False
        return await intake.take(b"a")

    assert asyncio.run(play()) == Stored(1, 0)

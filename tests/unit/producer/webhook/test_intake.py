"""The intake: grouping, and that no body costs its neighbours anything."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from threading import Event

import pytest

from segrelay.producer.publishing.published import Published
from segrelay.producer.webhook.intake import GROUP_BODIES, Body, Intake, RequestRefused
from segrelay.worker.errors import RedisUnavailable
from tests.waiting import allowed

POISON, UNWRITABLE = b"poison", b"unwritable"


class Shelf:
    """Stores in memory; fails for groups that hold the poison, and while it is closed.

    It takes at most three payloads of a body at once, and of at most `most` bodies.
    """

    def __init__(self, most: int = GROUP_BODIES) -> None:
        self.groups: list[list[bytes]] = []
        self.is_closed = False
        self.most = most
        self.writes_until_it_closes = 1_000_000
        self.refusals = 0
        self.is_storing = False
        self.may_store = Event()
        self.may_store.set()

    def store(self, bodies: Sequence[Body]) -> None:
        if self.is_closed:
            self.refusals += 1
            raise RedisUnavailable("It is closed.")
        taken: list[tuple[Body, int]] = []
        for body in islice(bodies, self.most):
            if body.text == POISON:
                raise ValueError("A bug that this body meets.")
            taken.append((body, len(list(islice(body.payloads(), 3)))))
        assert not self.is_storing
        self.is_storing = True
        self.may_store.wait(allowed(5))
        self.is_storing = False
        texts = [body.text for body, _ in taken]
        if self.writes_until_it_closes == 0:
            raise RedisUnavailable("It is closed.")
        if UNWRITABLE in texts:
            raise ValueError("A bug that this body meets when it is written.")
        self.writes_until_it_closes -= 1
        self.groups.append(texts)
        for body, count in taken:
            body.advance(Published(accepted=count))


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(allowed(5)):
        while not is_true():  # noqa: ASYNC110 - a thread changes it
            await asyncio.sleep(0.001)


async def take_all(intake: Intake, bodies: Sequence[bytes]) -> list[Published | BaseException]:
    taken = [intake.take(Body(text, most=100)) for text in bodies]
    return await asyncio.gather(*taken, return_exceptions=True)


def groups_of(shelf: Shelf, count: int) -> list[list[bytes]]:
    """Return the groups of so many bodies that come while another one is written."""

    async def play() -> None:
        intake = Intake(shelf.store)
        answers = [asyncio.ensure_future(intake.take(Body(b"1")))]
        await until(lambda: shelf.is_storing)
        answers += [asyncio.ensure_future(intake.take(Body(b"2"))) for _ in range(count)]
        await asyncio.sleep(0)
        assert not answers[0].done()
        shelf.may_store.set()
        await asyncio.gather(*answers)

    shelf.may_store.clear()
    asyncio.run(play())
    return shelf.groups


def test_what_comes_while_a_group_is_written_shares_the_next_write_which_is_bounded() -> None:
    assert groups_of(Shelf(), 20) == [[b"1"], [b"2"] * 20]
    assert groups_of(Shelf(), GROUP_BODIES + 1) == [[b"1"], [b"2"] * GROUP_BODIES, [b"2"]]


def array(count: int, element: bytes = b"1") -> bytes:
    return b"[" + b",".join([element] * count) + b"]"


@pytest.mark.parametrize(
    ("bodies", "answers"),
    [
        ([b"1", array(2), array(3)], [1, 2, 3]),
        ([array(100), b"1", array(100)], [100, 1, 100]),
        ([b"1", array(101, b"{}"), b"2"], [1, RequestRefused, 1]),
        ([b"a", POISON, b"bb"], [1, ValueError, 1]),
        ([b"a", UNWRITABLE, b"bb"], [1, ValueError, 1]),
    ],
    ids=["a few", "of many portions", "too many payloads", "a bug", "a bug in writing"],
)
def test_each_body_gets_its_own_answer(bodies: list[bytes], answers: list[object]) -> None:
    found = asyncio.run(take_all(Intake(Shelf().store), bodies))

    assert answers == [one.accepted if isinstance(one, Published) else type(one) for one in found]


def test_what_comes_while_a_large_body_is_stored_waits_for_one_portion_only() -> None:
    shelf = Shelf()
    many = array(99)

    async def play() -> None:
        intake = Intake(shelf.store)
        large = asyncio.ensure_future(intake.take(Body(many)))
        await until(lambda: shelf.is_storing)
        small = asyncio.ensure_future(intake.take(Body(b"2")))
        await asyncio.sleep(0)
        shelf.may_store.set()
        await small
        assert not large.done()
        await large

    shelf.may_store.clear()
    asyncio.run(play())

    (group,) = [group for group in shelf.groups if b"2" in group]
    assert sorted(group) == sorted([many, b"2"])


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


def test_who_waits_while_nothing_can_be_drafted_is_told_at_once() -> None:
    shelf = Shelf()
    shelf.is_closed = True

    answers = asyncio.run(take_all(Intake(shelf.store), [b"1"] * 1_000))

    assert {type(answer) for answer in answers} == {RedisUnavailable}
    assert shelf.refusals < 100


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

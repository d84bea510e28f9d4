"""What a process keeps for those who watch: what they want, within a budget."""

from dataclasses import dataclass, field

import orjson
import pytest

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.masking import MASK
from segrelay.worker.contract.taps import (
    BURST,
    CONTENT_BYTES,
    MOST_RECORDS,
    PER_SECOND,
    TapFilter,
    TapKind,
    Taps,
    about,
    shown_content,
)
from segrelay.worker.contract.words import Direction

ANN, BEN = b"a" * 10, b"b" * 10


@dataclass
class Passing:
    trigger: str = "enter"
    digest: bytes = ANN
    audience: str = "vip"

    @property
    def header(self):
        return Header(
            *(self.digest, self.audience, Direction.ENTER, 1_700_000_000_000_000),
            *(False, False, False, 1_700_000_000_000),
        )


class Described:
    def record(self, one, *, reveal):
        return {**about(one if isinstance(one, Passing) else one[0]), "reveal": reveal}

    def words(self, one, *, reveal):
        return [one.audience, "secret"] if reveal else [one.audience]


@dataclass
class World:
    """One process, and a clock that the test moves."""

    now: float = 1_000.0
    taps: Taps = field(init=False)

    def __post_init__(self):
        self.taps = Taps(lambda: self.now)

    def watch(self, **wanted):
        self.taps.learn({b"w1": TapFilter(**wanted).dumps(), b"w1|until": b"9"})

    def offer(self, *ones, kind=TapKind.EVENT, destination="insider", outcome=""):
        self.taps.offer(kind, destination, ones, Described(), lambda _: outcome)

    def taken(self):
        """Return the records for the one watch, and how many were left out."""
        (offer,) = self.taps.take() or [None]
        return (
            ([orjson.loads(each) for each in offer.records], offer.left_out) if offer else ([], 0)
        )


@pytest.fixture
def world():
    return World()


@pytest.mark.parametrize(
    "strange",
    [b'{"kind":"event","since":5}', b"no JSON", b"[1]", b'{"people":["not hex"]}', b'{"people":5}'],
)
def test_a_watch_that_cannot_be_read_stops_nothing_and_hides_no_other(world, strange):
    world.taps.learn({b"w0": strange, b"w1": TapFilter().dumps()})
    world.offer(Passing())

    assert [record["person"] for record in world.taken()[0]] == [ANN.hex()]


def test_a_filter_is_read_as_it_was_written():
    wanted = TapFilter("render", "enter", "vip", "insider", "", frozenset([ANN]), "x", reveal=True)

    assert TapFilter.loads(wanted.dumps()) == wanted
    assert TapFilter.loads(TapFilter().dumps()) == TapFilter()
    assert b"aaaaaaaaaa" not in wanted.dumps()


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({}, 3),
        ({"trigger": "exit"}, 1),
        ({"audience": "gold"}, 1),
        ({"people": frozenset([BEN])}, 2),
        ({"people": frozenset([BEN]), "audience": "vip"}, 1),
        ({"destination": "other"}, 0),
        ({"kind": "render"}, 0),
        ({"outcome": "dead"}, 0),
        ({"containing": "GOL"}, 1),
        ({"containing": "secret"}, 0),
        ({"containing": "secret", "reveal": True}, 3),
    ],
    ids=str,
)
def test_a_watch_gets_what_its_filter_wants(world, wanted, count):
    world.watch(**wanted)

    world.offer(Passing(), Passing("exit", BEN), Passing("enter", BEN, "gold"))

    records, left_out = world.taken()
    assert (len(records), left_out) == (count, 0)


def test_with_an_outcome_only_outcomes_of_its_kind_are_shown(world):
    world.watch(outcome="dead")

    world.offer(Passing(), kind=TapKind.OUTCOME, outcome="delivered")
    world.offer(Passing(), kind=TapKind.OUTCOME, outcome="dead")
    world.offer(Passing(), kind=TapKind.RENDER)

    assert len(world.taken()[0]) == 1


def test_beyond_the_budget_everything_is_counted(world):
    world.watch()

    world.offer(*[Passing()] * 1_000)
    first = world.taken()
    world.now += 1.0
    world.offer(*[Passing()] * 1_000)
    second = world.taken()

    assert (len(first[0]), first[1]) == (BURST, 1_000 - BURST)
    assert (len(second[0]), second[1]) == (PER_SECOND, 1_000 - PER_SECOND)


def test_a_kind_of_which_there_is_much_takes_no_room_from_the_others(world):
    world.watch()

    for kind in TapKind:
        world.offer(*[Passing()] * 1_000, kind=kind)

    assert len(world.taken()[0]) == len(TapKind) * BURST


def test_what_is_rare_is_not_lost_in_the_sample(world):
    world.watch(people=frozenset([BEN]))

    for _ in range(40):
        world.offer(*[Passing()] * 1_000, Passing("exit", BEN))

    records, left_out = world.taken()
    assert (len(records), left_out) == (40, 0)


def test_looking_for_a_text_takes_a_small_share_of_the_time(world):
    read = []

    class Slow(Described):
        def words(self, one, *, reveal):
            read.append(one)
            sum(range(10_000))
            return super().words(one, reveal=reveal)

    world.watch(containing="vip")

    world.taps.offer(TapKind.EVENT, "insider", [Passing()] * 5_000, Slow())

    records, left_out = world.taken()
    assert len(read) < 5_000
    assert len(records) + left_out == 5_000


def test_a_request_is_one_record_whoever_of_it_is_wanted(world):
    world.watch(people=frozenset([BEN]))
    carried = [Passing(), Passing(digest=BEN), Passing(digest=BEN)]

    world.taps.offer_whole(TapKind.REQUEST, "insider", carried, Described())
    world.taps.offer_whole(TapKind.REQUEST, "insider", carried[:1], Described())

    records, left_out = world.taken()
    assert [record["person"] for record in records] == [BEN.hex()]
    assert left_out == 0


def test_what_could_not_be_sent_is_left_out(world):
    world.watch()
    world.offer(*[Passing()] * 3)
    offers = world.taps.take()

    world.taps.lose(offers)

    assert world.taken() == ([], 3)


def test_a_process_keeps_no_more_than_a_stream_holds(world):
    world.watch()

    for _ in range(20):
        world.now += 10
        world.offer(*[Passing()] * 100)

    records, left_out = world.taken()
    assert len(records) == MOST_RECORDS
    assert len(records) + left_out == 2_000


def test_a_watch_goes_on_with_its_budget_until_it_is_gone_or_another(world):
    world.watch()
    world.offer(*[Passing()] * 1_000)
    world.taps.take()

    world.watch()
    world.offer(Passing())
    assert world.taken() == ([], 1)
    world.watch(trigger="enter")
    world.offer(Passing())
    assert len(world.taken()[0]) == 1
    world.taps.learn({})
    world.offer(Passing())

    assert not world.taps
    assert world.taps.take() == []


def test_counts_alone_are_due_once_a_second(world):
    world.watch()
    world.offer(*[Passing()] * 1_000)
    assert world.taps.is_due()
    world.taps.take()

    world.offer(Passing())
    assert not world.taps.is_due()
    world.now += 1.0

    assert world.taps.is_due()


@pytest.mark.parametrize(
    ("text", "reveal", "content"),
    [
        (b'{"email": "ann@example.com"}', False, {"email": MASK}),
        (b'{"email": "ann@example.com"}', True, {"email": "ann@example.com"}),
        (b"no json", False, MASK),
        (b"no json", True, "no json"),
        (b"", False, None),
        (b"x" * (CONTENT_BYTES + 1), False, None),
        (b"x" * (CONTENT_BYTES + 1), True, "x" * CONTENT_BYTES + "…"),
    ],
    ids=["masked", "revealed", "a text", "a text revealed", "nothing", "long", "long revealed"],
)
def test_a_content_is_shown_masked_revealed_or_cut(text, reveal, content):
    assert shown_content(text, reveal=reveal) == {"bytes": len(text), "content": content}


def test_what_has_nothing_to_show_makes_no_record_and_is_not_left_out(world):
    world.watch()
    ones = [Passing("enter"), Passing("exit")]

    world.taps.offer(
        TapKind.RENDER, "insider", ones, Described(), has=lambda one: one.trigger == "exit"
    )

    records, left_out = world.taken()
    assert ([each["trigger"] for each in records], left_out) == (["exit"], 0)

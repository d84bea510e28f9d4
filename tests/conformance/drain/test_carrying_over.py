"""What a drain makes of events that wait under the former slug of a renamed audience."""

import orjson
import pytest

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import LedgerText
from segrelay.worker.batch.renames import read_and_carry
from segrelay.worker.batch.state import State
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.triggers import Renames
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import with_delivered, with_tried
from segrelay.worker.core.supersede import LedgerEvent
from tests.conformance.clocked_redis import at_once
from tests.conformance.drain.fakes import FakeNumbers
from tests.conformance.drain.test_reading_streams import NoClock
from tests.conformance.drain.world import BEFORE_US, World, event

DIGEST = digest_of("email:ada@example.com")
ENTER, EXIT = Direction.ENTER, Direction.EXIT
RENAMES = Renames(
    {"vip": "gold"},
    {("gold", ENTER): ("gold-enter",), ("gold", EXIT): ("gold-exit",), ("vip", EXIT): ("exit",)},
)


@pytest.fixture
def carried(make_world):
    world = make_world()

    def carry(
        *events: NewDelivery, renames: Renames = RENAMES, record: Record | None = None
    ) -> set[tuple[str, str, str, str, bool]]:
        """Return what waits once a drain has read: trigger, audience, slug, direction, former."""
        if record:
            world.store.put_ledger(DIGEST, LedgerText.of(record).text)
        world.put(*events)
        at_once(read_all(world, renames))
        world.check_sum()
        return {_told(each) for row in world.store.streams.values() for each in row.values()}

    return carry


async def read_all(world: World, renames: Renames) -> list[Delivery]:
    """Let a drain read everything."""
    partition, numbers = world.partition(), FakeNumbers()
    holding = await partition.take()
    assert holding is not None
    await numbers.learn(["vip"], ["enter"])
    state = State.of(holding, NoClock(), 30.0)
    state.renames = renames
    streams = list(await partition.streams())
    world.sum_is_due = True
    return (await read_and_carry(partition, state, streams, numbers, entries=100)).deliveries


def _told(delivery: Delivery) -> tuple[str, str, str, str, bool]:
    header = delivery.header
    (told,) = orjson.loads(decode_profile(delivery.profile))["segment_events"]
    assert told["event"] == header.direction
    assert told[header.direction]
    slug = told.get("slug", told["segment"])
    return delivery.trigger, header.audience, slug, header.direction.value, header.former


def test_an_entrance_becomes_one_of_the_new_slug(carried) -> None:
    assert carried(event("ada")) == {("gold-enter", "gold", "gold", "enter", False)}


@pytest.mark.parametrize(("later_us", "stays"), [(-1, False), (0, True), (1, True)])
def test_an_entrance_stays_where_the_former_slug_knows_an_exit_that_beats_it(
    carried, later_us: int, stays: bool
) -> None:
    entered = event("ada")
    fact = LedgerEvent(entered.header.time_us + later_us, EXIT, 2, 1)
    left = with_delivered(Record(), fact)

    (found,) = carried(entered, record=left)

    assert found[1] == ("vip" if stays else "gold")


def test_an_exit_leaves_both_slugs(carried) -> None:
    assert carried(event("ada", trigger="exit")) == {
        ("gold-exit", "gold", "gold", "exit", False),
        ("exit", "vip", "vip", "exit", True),
    }


def test_an_entrance_that_may_have_been_delivered_is_taken_back_under_the_former_slug(
    carried,
) -> None:
    tried = with_tried(Record(), LedgerEvent(BEFORE_US + 1_000_000, ENTER, 2, 1))

    assert carried(event("ada"), record=tried) == {
        ("gold-enter", "gold", "gold", "enter", False),
        ("exit", "vip", "vip", "exit", True),
    }


def test_what_was_tried_before_an_entrance_is_not_taken_back(carried) -> None:
    tried = with_tried(Record(), LedgerEvent(BEFORE_US, ENTER, 2, 1))

    assert carried(event("ada"), record=tried) == {("gold-enter", "gold", "gold", "enter", False)}


def test_a_repair_and_what_was_carried_over_stay_as_they_are(carried) -> None:
    repair, former = event("ada"), event("bob", trigger="exit")
    repair = repair._replace(header=repair.header._replace(repair=True))
    former = former._replace(header=former.header._replace(former=True))

    assert carried(repair, former) == {
        ("enter", "vip", "vip", "enter", False),
        ("exit", "vip", "vip", "exit", True),
    }


def test_what_a_renaming_left_is_dropped_once_the_slug_was_taken_back(carried) -> None:
    former = event("ada", trigger="exit")
    former = former._replace(header=former.header._replace(former=True))

    assert carried(former, renames=Renames({"gold": "vip"}, {})) == set()


@pytest.mark.parametrize("slugs", [{}, {"other": "gold"}, {"vip": "unwanted"}], ids=str)
def test_what_no_renaming_concerns_stays_as_it_is(carried, slugs: dict[str, str]) -> None:
    renames = Renames(slugs, RENAMES.wanting)

    assert carried(event("ada"), renames=renames) == {("enter", "vip", "vip", "enter", False)}


def test_a_profile_that_cannot_be_read_stays_where_it_is(make_world) -> None:
    broken = event("ada")._replace(profile=b"{no json")

    world = make_world()
    world.put(broken)

    assert len(at_once(read_all(world, RENAMES))) == 1

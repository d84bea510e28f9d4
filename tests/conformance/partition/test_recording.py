"""Recording outcomes: the script that moves a count writes the rows, so the two never differ."""

from types import SimpleNamespace

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.words import Death, Skip
from tests.conformance.partition.conftest import START_MS, Bench, intent_of
from tests.conformance.partition.steps import DEAD_LETTER, VIP, held_with, settle, settled, take


def ended(delivery: Delivery, reason: Skip | Death | None = None, **more: object) -> Delivery:
    fresh = settled(delivery, reason, **more)  # type: ignore[arg-type]
    fresh.loaded = SimpleNamespace(template=SimpleNamespace(content_hash="f00d"))  # type: ignore[assignment]
    return fresh


def recording(bench: Bench, *people: str) -> list[Delivery]:
    bench.record()
    return held_with(bench, *people)


def test_nothing_is_kept_unless_it_is_configured(bench: Bench) -> None:
    (ada,) = held_with(bench, "ada")

    settle(bench, Settlement([settled(ada)]))

    assert bench.outcomes() == []
    assert bench.recorded() == {}


def test_each_outcome_is_a_row_however_often_it_is_settled(bench: Bench) -> None:
    ada, bob, cyd = recording(bench, "ada", "bob", "cyd")
    bench.run(bench.one.intent(intent_of("n", ada, bob, cyd)))
    settlement = Settlement(
        [
            ended(ada, tells=False),
            ended(bob, Skip.SUPERSEDED),
            ended(cyd, Death.REFUSED, dead_letter=DEAD_LETTER),
        ],
        intent_id="n",
    )

    settle(bench, settlement)
    settle(bench, settlement)

    rows = bench.outcomes()
    assert [(row.person, row.outcome, row.reason, row.counts) for row in rows] == [
        (ada.digest.hex(), "delivered", "", 1),
        (bob.digest.hex(), "skipped", "superseded", 1),
        (cyd.digest.hex(), "dead", "refused", 1),
    ]
    first = rows[0]
    assert (first.trigger, first.lane, first.destination) == ("vip-enter", "live", "insider")
    assert (first.audience, first.direction, first.template) == ("vip", "enter", "f00d")
    assert first.event_time_us == ada.header.time_us
    assert len({row.id for row in rows}) == 3


def test_what_was_taken_back_meanwhile_has_no_second_end(bench: Bench) -> None:
    ada, bob, cyd, dan = recording(bench, "ada", "bob", "cyd", "dan")
    bench.run(bench.world._client.xdel(bench.world.keys.stream(VIP), bob.entry_id, dan.entry_id))

    settle(bench, Settlement([ended(one) for one in (ada, bob, cyd, dan)]))

    assert [row.person for row in bench.outcomes()] == [ada.digest.hex(), cyd.digest.hex()]
    assert bench.count("delivered|vip-enter") == 2
    assert bench.recorded()["rows"] == 2


def test_rows_of_streams_that_are_removed_whole_are_those_that_were_there(bench: Bench) -> None:
    bench.record()
    for trigger in ("a", "b", "c"):
        bench.accept("ada", "bob", trigger=trigger)
    take(bench)
    found = [d for name in ("a", "b", "c") for d in bench.deliveries(f"live|{name}")]
    gone = found[3]
    bench.run(bench.world._client.xdel(bench.world.keys.stream("live|b"), gone.entry_id))

    settle(bench, Settlement([ended(one) for one in found]))

    told = {(row.trigger, row.person) for row in bench.outcomes()}
    assert told == {(d.trigger, d.digest.hex()) for d in found if d is not gone}
    assert bench.contents()["streams"] == {}


def test_fields_of_the_profile_are_told_where_they_are_named(bench: Bench) -> None:
    bench.record("email", "plan")
    (ada,) = held_with(bench, "ada")

    settle(bench, Settlement([ended(ada)]))

    assert [row.fields for row in bench.outcomes()] == [{"email": "ada@example.com", "plan": None}]


def test_the_oldest_rows_go_when_there_is_no_room_and_are_counted(bench: Bench) -> None:
    bench.record(most_bytes=1_000)
    for at in range(10):
        bench.world.set_clock(START_MS + 1_000 * at)
        (one,) = held_with(bench, f"person{at}")[-1:]
        settle(bench, Settlement([ended(one)]))
        bench.run(bench.one.release({}, ()))

    recorded = bench.recorded()
    left = len(bench.outcomes())
    assert 1 <= left < 10
    assert recorded["dropped"] == 10 - left == recorded["gone_rows"]
    assert recorded["bytes"] - recorded["gone_bytes"] <= 1_000
    assert bench.count("delivered|vip-enter") == 10

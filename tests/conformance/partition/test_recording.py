"""The outcome log: the script that moves a count writes the rows, so the two never differ."""

from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.words import Death
from tests.conformance.partition.conftest import Bench, intent_of
from tests.conformance.partition.steps import DEAD_LETTER, VIP, held_with, settle, settled, take


def test_what_was_taken_back_meanwhile_has_no_second_end(bench: Bench) -> None:
    ada, bob, cyd, dan = held_with(bench, "ada", "bob", "cyd", "dan")
    bench.take_back(VIP, bob, dan)

    settle(bench, Settlement([settled(one) for one in (ada, bob, cyd, dan)]))

    assert [row.person for row in bench.store.outcomes] == [ada.digest.hex(), cyd.digest.hex()]
    assert bench.count("delivered|vip-enter") == 2


def test_rows_of_streams_that_are_removed_whole_are_those_that_were_there(bench: Bench) -> None:
    for trigger in ("a", "b", "c"):
        bench.accept("ada", "bob", trigger=trigger)
    take(bench)
    found = [d for name in ("a", "b", "c") for d in bench.deliveries(f"live|{name}")]
    gone = found[3]
    bench.take_back("live|b", gone)

    settle(bench, Settlement([settled(one) for one in found]))

    told = {(row.trigger, row.person) for row in bench.store.outcomes}
    assert told == {(d.trigger, d.digest.hex()) for d in found if d is not gone}
    assert bench.store.lengths() == {}


def test_the_oldest_rows_go_when_there_is_no_room_and_it_is_known_since_when(
    bench: Bench,
) -> None:
    bench.one = bench.partition(1_000)
    for at in range(10):
        bench.pass_seconds(1)
        (one,) = held_with(bench, f"person{at}")[-1:]
        settle(bench, Settlement([settled(one)]))
        bench.run(bench.one.release({}, ()))

    recorded, rows = bench.recorded(), bench.store.outcomes
    assert 1 <= len(rows) < 10
    assert recorded[b"bytes"] <= 1_000
    assert rows[0].time_ms - 1_000 < recorded[b"since"] <= rows[0].time_ms
    assert bench.count("delivered|vip-enter") == 10


def test_a_try_is_a_row_that_counts_nothing_beside_ends(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.run(bench.one.intent(intent_of("n", ada, bob)))
    retried = Settlement(
        [settled(bob, Death.FAILED, dead_letter=DEAD_LETTER)],
        intent_id="n",
        retried=[ada, bob],
        retry_message="503",
    )

    settle(bench, retried)
    settle(bench, retried)
    bench.run(bench.one.intent(intent_of("m", ada)))
    settle(bench, Settlement(intent_id="m", retried=[ada], retry_message="504"))

    assert [(row.person, row.outcome, row.message, row.counts) for row in bench.store.outcomes] == [
        (bob.digest.hex(), "dead", "", 1),
        (ada.digest.hex(), "retry", "503", 0),
        (bob.digest.hex(), "retry", "503", 0),
        (ada.digest.hex(), "retry", "504", 0),
    ]

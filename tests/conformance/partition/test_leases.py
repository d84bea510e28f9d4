"""The lease of a partition, also where clocks were set back."""

import pytest

from segrelay.worker.batch.partition import Settlement
from segrelay.worker.errors import LeaseLost
from tests.conformance.partition.conftest import LATE_SECONDS, LEASE_SECONDS, Bench, intent_of
from tests.conformance.partition.steps import held_with, settle, settled, take


def test_a_lapsed_lease_can_be_taken_and_then_the_old_holder_has_lost_it(bench: Bench) -> None:
    delivery = held_with(bench, "ada")[0]
    bench.pass_seconds(LEASE_SECONDS)

    take(bench, bench.two)

    for lost in (
        bench.one.ledgers([delivery.header.digest]),
        bench.one.intent(intent_of("n", delivery)),
        bench.one.settle(Settlement([settled(delivery)])),
        bench.one.intents_in_doubt(["n"], 30.0, {}),
    ):
        with pytest.raises(LeaseLost):
            bench.run(lost)
    assert not bench.renew(bench.one)
    assert tuple(bench.run(bench.one.release({}, ()))) == (False, False, "")
    assert bench.count("delivered|vip-enter") == 0


def test_a_lapsed_lease_that_nobody_took_still_settles(bench: Bench) -> None:
    delivery = held_with(bench, "ada")[0]
    bench.pass_seconds(2 * LEASE_SECONDS)

    settle(bench, Settlement([settled(delivery)]))

    assert bench.count("delivered|vip-enter") == 1


def test_a_renewed_lease_and_an_intent_put_the_end_off(bench: Bench) -> None:
    delivery = held_with(bench, "ada")[0]
    bench.pass_seconds(LEASE_SECONDS - 1)
    assert bench.renew(bench.one)
    bench.pass_seconds(LEASE_SECONDS - 1)
    bench.run(bench.one.intent(intent_of("n", delivery)))
    bench.pass_seconds(LEASE_SECONDS - 1)

    assert bench.run(bench.two.take()) is None


def test_a_clock_that_was_set_back_takes_no_lease_from_a_holder_that_lives(bench: Bench) -> None:
    take(bench)
    bench.pass_seconds(-3_600)

    early = bench.run(bench.two.take())
    bench.pass_seconds(LEASE_SECONDS - 1)
    assert bench.renew(bench.one)
    bench.pass_seconds(LEASE_SECONDS - 1)

    assert early is None
    assert bench.run(bench.two.take()) is None


def test_a_clock_that_was_set_back_lengthens_no_lease_of_a_holder_that_is_gone(
    bench: Bench,
) -> None:
    take(bench)
    bench.pass_seconds(-3_600)
    assert bench.run(bench.two.take()) is None

    bench.pass_seconds(LEASE_SECONDS)

    assert bench.run(bench.two.take())


def test_a_clock_that_was_set_back_lengthens_no_intent_in_doubt(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.intent(intent_of("n", ada)))
    settle(bench, Settlement(intent_id="n", open_seconds=LATE_SECONDS))
    bench.run(bench.one.release({}, ()))
    bench.pass_seconds(-3_600)

    seen = take(bench, bench.two)
    bench.run(bench.two.release({}, ()))
    bench.pass_seconds(LATE_SECONDS)

    assert [n.open_until_ms - seen.now_ms for n in seen.intents] == [1000 * LATE_SECONDS]
    assert take(bench).intents == ()

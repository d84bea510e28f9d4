"""Other deliveries in the place of those that wait: all or nothing, counted, under the lease."""

import pytest

from segrelay.worker.batch.partition import Replacement, Settlement
from segrelay.worker.errors import LeaseLost
from tests.conformance.partition.conftest import Bench, new
from tests.conformance.partition.steps import held_with, settle, settled


def test_what_is_carried_over_takes_the_place_of_what_waited(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    gold = new("ada", trigger="gold")

    bench.run(bench.one.carry_over([Replacement(ada, [gold, gold]), Replacement(bob, [])]))

    assert {name: len(rows) for name, rows in bench.contents()["streams"].items()} == {
        "live|gold": 2
    }
    assert (bench.count("accepted|vip-enter"), bench.count("accepted|gold")) == (0, 2)
    assert bench.run(bench.one.streams()) == ("live|gold",)


def test_carrying_over_what_is_gone_adds_nothing(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    settle(bench, Settlement([settled(ada)]))
    before = bench.contents()

    bench.run(bench.one.carry_over([Replacement(ada, [new("ada", trigger="gold")])]))

    assert bench.contents() == before


def test_nobody_carries_over_without_the_lease(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]

    with pytest.raises(LeaseLost):
        bench.run(bench.two.carry_over([Replacement(ada, [new("ada", trigger="gold")])]))


def test_what_is_carried_over_is_counted_in_its_job(bench: Bench) -> None:
    bench.accept("ada", lane="job.may")
    bench.run(bench.one.take())
    (ada,) = bench.deliveries("job.may|vip-enter")
    before = bench.count("job|may|accepted")

    gold = [new("ada", trigger=name, lane="job.may") for name in ("gold", "other")]
    bench.run(bench.one.carry_over([Replacement(ada, gold)]))

    assert bench.count("job|may|accepted") == before + 1
    counts = [bench.count(f"backfill.accepted|{name}") for name in ("gold", "other", "vip-enter")]
    assert counts == [1, 1, 0]

"""People who are renamed, as the holder of a partition sees them: in memory and in Valkey."""

import pytest

from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.people import Forward, Moving
from tests.conformance.partition.conftest import Bench, new

ADA, BOB = digest_of("email:ada"), digest_of("email:bob")
RECORD = Forward(Moving.DONE, "email:lovelace", 3, 1).dumps()


def test_a_holder_learns_that_there_are_forwards_and_reads_those_it_asks_for(bench: Bench) -> None:
    bench.world.forward(ADA, RECORD)

    holding = bench.run(bench.one.take())

    assert holding.has_forwards
    assert bench.run(bench.one.forwards([BOB, ADA])) == [None, RECORD]


def test_a_holder_of_a_partition_without_forwards_need_not_ask(bench: Bench) -> None:
    assert not bench.run(bench.one.take()).has_forwards


def test_what_belongs_to_another_partition_is_added_there_and_not_here(bench: Bench) -> None:
    bench.run(bench.one.take())

    bench.run(bench.one.accept_in(3, [new("ada")]))

    assert bench.world.waiting_in(3) == 1
    assert bench.run(bench.one.streams()) == ()
    assert bench.count("accepted|vip-enter") == 0


def test_a_record_that_was_written_is_read_again() -> None:
    assert Forward.loads(RECORD) == Forward(Moving.DONE, "email:lovelace", 3, 1)


def test_a_record_with_an_unknown_step_is_refused() -> None:
    with pytest.raises(ValueError, match="elsewhere"):
        Forward.loads(RECORD.replace(b"done", b"elsewhere"))

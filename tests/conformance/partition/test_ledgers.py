"""How long the ledgers of a partition last."""

import pytest

from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.ledger import Item, Record, pack
from segrelay.worker.contract.words import Direction
from tests.conformance.partition.conftest import RETENTION_SECONDS, Bench, intent_of, new
from tests.conformance.partition.steps import held_with, settle, settled, take
from tests.ledger_keys import lapses_at_ms, lapsing_text

OUT, IN = Record(1), Record(1, {(1, 1): Item(Direction.ENTER, 1)})
LEEWAY_SECONDS = 600.0
LASTS_SECONDS = RETENTION_SECONDS + LEEWAY_SECONDS


def test_ledgers_are_read_with_and_without_the_lease_and_lapse(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    settle(bench, Settlement([settled(ada, tells=True)], ledgers={ada.header.digest: OUT}))
    digests = [bob.header.digest, ada.header.digest]

    held, peeked = bench.run(bench.one.ledgers(digests)), bench.run(bench.two.peek(digests))
    assert held == peeked == [None, lapsing_text(lapses_at_ms(held[1]), pack(OUT))]
    lives_ms = bench.ledger_lives_ms(ada.header.digest)
    assert 0 < lives_ms <= 1_000 * RETENTION_SECONDS


@pytest.mark.parametrize("lasts", [False, True], ids=["of a person who left", "of a member"])
def test_every_writer_gives_a_ledger_its_retention_unless_it_is_a_members(
    bench: Bench, *, lasts: bool
) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    record = IN if lasts else OUT
    bench.run(bench.one.intent(intent_of("n1", ada)))
    settle(bench, Settlement(intent_id="n1", open_seconds=30, ledgers={ada.header.digest: record}))
    bench.run(bench.one.intent(intent_of("n2", bob)))
    bench.run(bench.one.intents_in_doubt(["n2"], 30, {bob.header.digest: record}))

    for digest in (ada.header.digest, bob.header.digest):
        lives_ms = bench.ledger_lives_ms(digest)
        assert lives_ms < 0 if lasts else 0 < lives_ms <= 1_000 * RETENTION_SECONDS
        assert bench.run(bench.two.peek([digest]))[0].endswith(pack(record))


def test_a_ledger_that_would_have_lapsed_lasts_once_its_person_is_in_again(bench: Bench) -> None:
    ada, later = held_with(bench, "ada", "ada")
    digest = ada.header.digest
    settle(bench, Settlement([settled(ada, tells=True)], ledgers={digest: OUT}))
    assert bench.ledger_lives_ms(digest) > 0

    settle(bench, Settlement([settled(later, tells=True)], ledgers={digest: IN}))

    assert bench.ledger_lives_ms(digest) < 0


def left(bench: Bench, *people: str) -> list[bytes]:
    """Deliver the exits of people, and return the digests under which the ledger tells of it."""
    exits = [new(person, "vip-exit") for person in people]
    bench.run(bench.one.accept([each._replace(header=fresh(bench, each)) for each in exits]))
    take(bench)
    gone = bench.deliveries("live|vip-exit")
    ledgers = {each.header.digest: OUT for each in gone}
    settle(bench, Settlement([settled(each, tells=True) for each in gone], ledgers=ledgers))
    return list(ledgers)


def fresh(bench, delivery):
    """Return the header of a delivery that was accepted now."""
    return delivery.header._replace(accepted_ms=bench.now_ms)


def accept(bench, person, lane="live"):
    """Accept an entrance now."""
    entrance = new(person, "vip-enter", lane)
    bench.run(bench.one.accept([entrance._replace(header=fresh(bench, entrance))]))


def known(bench, digests):
    """Return of how many of these profiles there is a ledger."""
    return len([text for text in bench.run(bench.two.peek(digests)) if text])


def test_a_ledger_whose_time_is_past_goes_if_nothing_waits(bench: Bench) -> None:
    digests = left(bench, "ada", "bob")

    bench.pass_seconds(LASTS_SECONDS - 1)
    assert bench.remove_lapsed() == 0
    bench.pass_seconds(2)
    assert bench.remove_lapsed() == 2
    assert known(bench, digests) == 0


@pytest.mark.parametrize("lane", ["live", "backfill", "job.load"])
def test_no_ledger_goes_while_something_waits_that_may_be_older(bench: Bench, lane: str) -> None:
    accept(bench, "ada", lane)
    digests = left(bench, "ada", "bob")

    bench.pass_seconds(20 * LASTS_SECONDS)
    assert bench.remove_lapsed() == 0
    assert known(bench, digests) == 2

    take(bench)
    settle(bench, Settlement([settled(each) for each in bench.deliveries(f"{lane}|vip-enter")]))
    assert bench.remove_lapsed() == 2


def test_what_came_within_the_retention_may_be_older_than_the_ledger_too(bench: Bench) -> None:
    digests = left(bench, "ada")
    bench.pass_seconds(RETENTION_SECONDS)
    accept(bench, "ada")

    bench.pass_seconds(10 * LASTS_SECONDS)
    assert bench.remove_lapsed() == 0
    assert known(bench, digests) == 1


def test_what_was_accepted_behind_its_time_holds_no_ledger(bench: Bench) -> None:
    left(bench, "bob")
    bench.pass_seconds(LASTS_SECONDS / 2)
    digests = left(bench, "ada")
    bench.pass_seconds(LASTS_SECONDS / 2 + 1)
    assert bench.remove_lapsed() == 1
    bench.pass_seconds(LASTS_SECONDS / 2)
    accept(bench, "ada")

    bench.pass_seconds(1)
    assert bench.remove_lapsed() == 1
    assert known(bench, digests) == 0


def test_a_clock_that_was_set_back_lets_nothing_lapse_too_early(bench: Bench) -> None:
    bench.accept_ahead("bob", 5 * LASTS_SECONDS)
    digests = left(bench, "ada")
    accept(bench, "ada")  # its id is behind that of the entry that came by the other clock

    take(bench)
    first, *_ = bench.deliveries()
    settle(bench, Settlement([settled(first)]))
    bench.pass_seconds(3 * LASTS_SECONDS)

    assert bench.remove_lapsed() == 0
    assert known(bench, digests) == 1

"""Few live deliveries come with the lease, together with their ledgers."""

import pytest

from segrelay.worker.batch.partition import ReadRange, Settlement
from segrelay.worker.contract.ledger import Item, Record, pack
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import LeaseLost
from tests.conformance.partition.conftest import LEASE_SECONDS, Bench, intent_of, new
from tests.conformance.partition.steps import VIP, held_with, settle, settled, take

KNOWN = Record(1, {(1, 1): Item(Direction.ENTER, 1)})
RANGE = ReadRange(VIP, "", 32)


def with_ledgers(bench: Bench, *people: str) -> None:
    """Let a partition know these people, and let new deliveries of them wait."""
    deliveries = held_with(bench, *people)
    ledgers = {each.header.digest: KNOWN for each in deliveries}
    settle(bench, Settlement([settled(each, tells=True) for each in deliveries], ledgers=ledgers))
    bench.run(bench.one.release({}, ()))
    bench.accept(*people)


def remove_all(bench: Bench) -> None:
    """Take streams and ledgers away, so that whoever asks Redis finds nothing."""
    keys = bench.keys
    names = [VIP, "live|other", "backfill|vip-enter"]
    ledgers = [keys.ledger(new(who).header.digest) for who in ("ada", "bob")]
    bench.client.delete(*map(keys.stream, names), *ledgers)


def test_few_live_deliveries_are_read_with_the_lease_and_only_once(bench: Bench) -> None:
    with_ledgers(bench, "ada", "bob")
    for trigger in ("other", "third", "fourth"):
        bench.accept("ada", trigger=trigger)
    take(bench)
    remove_all(bench)

    found, other = bench.run(bench.one.read([RANGE, ReadRange("live|other", "", 32)]))
    ledgers = bench.run(
        bench.one.ledgers(
            [each.header.digest for each in found.entries],
            [each.position for each in (*found.entries, *other.entries)],
        )
    )
    [again] = bench.run(bench.one.read([RANGE]))

    assert (len(found.entries), found.is_all, len(other.entries)) == (2, True, 1)
    assert ledgers == [pack(KNOWN), pack(KNOWN)]
    assert not again.entries
    assert bench.run(bench.one.ledgers([found.entries[0].header.digest])) == [None]


def test_who_dies_with_deliveries_that_came_with_the_lease_is_found_to_have_rendered_them(
    bench: Bench,
) -> None:
    bench.accept("ada")
    take(bench)
    [delivery] = bench.deliveries()
    bench.pass_seconds(LEASE_SECONDS)

    holding = take(bench, bench.two)

    assert holding.rendering == {delivery.position}
    remove_all(bench)
    assert not bench.run(bench.two.read([RANGE]))[0].entries


def test_the_ledger_is_asked_where_something_was_written_since(bench: Bench) -> None:
    with_ledgers(bench, "ada")
    take(bench)
    [delivery] = bench.deliveries()
    digest = delivery.header.digest
    later = KNOWN._replace(data_us=2)
    newer = Settlement([settled(delivery, tells=True)], ledgers={digest: later})
    settle(bench, newer)

    assert bench.run(bench.one.ledgers([digest], [delivery.position])) == [pack(later)]


def test_the_ledger_is_asked_for_what_did_not_come_with_the_lease(bench: Bench) -> None:
    with_ledgers(bench, "ada", "bob")
    take(bench)
    [ada, bob] = bench.deliveries()
    bench.pass_seconds(LEASE_SECONDS)
    take(bench, bench.two)

    with pytest.raises(LeaseLost):
        bench.run(bench.one.ledgers([ada.header.digest], [bob.position, "live|vip-enter|9-9"]))


@pytest.mark.parametrize(
    ("lane", "people", "streams"), [("live", 8, 1), ("live", 1, 5), ("backfill", 1, 1)]
)
def test_many_deliveries_and_those_of_a_backfill_do_not_come_with_the_lease(
    bench: Bench, lane: str, people: int, streams: int
) -> None:
    for trigger in ("vip-enter", "a", "b", "c", "d")[:streams]:
        bench.accept(*(f"person{n}" for n in range(people)), lane=lane, trigger=trigger)
    take(bench)
    remove_all(bench)

    assert not bench.run(bench.one.read([ReadRange(f"{lane}|vip-enter", "", 32)]))[0].entries
    assert bench.rendering() == []


def test_deliveries_behind_an_intent_in_doubt_do_not_come_with_the_lease(bench: Bench) -> None:
    [delivery] = held_with(bench, "ada")
    bench.run(bench.one.intent(intent_of("n", delivery)))
    bench.pass_seconds(LEASE_SECONDS)
    take(bench, bench.two)
    remove_all(bench)

    assert not bench.run(bench.two.read([RANGE]))[0].entries

"""Settling: all or nothing, and once."""

from segrelay.worker.batch.partition import Settlement
from segrelay.worker.batch.read import order_of
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.backoff import Wait
from tests.conformance.partition.conftest import (
    Bench,
    intent_of,
    new,
)
from tests.conformance.partition.steps import (
    DEAD_LETTER,
    LETTER,
    SAMPLE,
    held_with,
    settle,
    settled,
    take,
)


def test_settling_counts_and_writes_rows_once_however_often_it_is_called(bench: Bench) -> None:
    ada, bob, cyd = held_with(bench, "ada", "bob", "cyd")
    bench.run(bench.one.intent(intent_of("n", ada, bob, cyd)))
    settlement = Settlement(
        [
            settled(ada, tells=True),
            settled(bob, Skip.SUPERSEDED, remark="superseded"),
            settled(cyd, Death.REFUSED, dead_letter=DEAD_LETTER),
        ],
        intent_id="n",
        ledgers={ada.header.digest: Record(1)},
        counts={"requests|vip-enter": 1},
        reached={"aa": b"[1,{}]"},
        responses=[b"record"],
    )

    settle(bench, settlement)
    once = bench.everything()
    settle(bench, settlement)

    assert bench.everything() == once
    assert bench.store.counts == {
        "accepted|vip-enter": 3,
        "delivered|vip-enter": 1,
        "skipped|vip-enter|superseded": 1,
        "dead|vip-enter|refused": 1,
        "requests|vip-enter": 1,
    }
    assert bench.store.lengths() == {}
    assert bench.store.intents == {}
    assert [row for _, row in bench.client.xrange(bench.keys.responses)] == [{b"r": b"record"}]
    assert bench.store.dead_letters == {"insider.0.1f": LETTER}
    assert bench.client.hgetall(bench.keys.causes) == {b"c4": SAMPLE, b"c4|n": b"1"}
    assert bench.ledgers() == {ada.header.digest: Record(1)}
    rows = bench.store.outcomes
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


def test_a_settlement_that_comes_again_after_others_changes_nothing(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    digest = ada.header.digest
    bench.run(bench.one.intent(intent_of("n1", ada)))
    old = Settlement(
        [settled(ada, tells=True)],
        intent_id="n1",
        ledgers={digest: Record(2)},
        waits={"vip-enter": Wait(1, bench.now_ms + 1, 0)},
        counts={"requests|vip-enter": 1},
    )
    without_request = Settlement(
        [settled(bob, Skip.DUPLICATE, tells=True)], ledgers={bob.header.digest: Record(2)}
    )
    settle(bench, old)
    settle(bench, without_request)
    bench.accept("ada")
    later = bench.deliveries()[0]
    bench.run(bench.one.intent(intent_of("n2", later)))
    newest = Settlement(
        [settled(later, tells=True)],
        "n2",
        ledgers={digest: Record(3)},
        waits={"vip-enter": None},
    )
    settle(bench, newest)
    before = bench.everything()

    settle(bench, old)
    settle(bench, without_request)

    assert bench.everything() == before
    assert bench.ledgers()[digest] == Record(3)


def test_what_is_not_there_any_more_changes_no_ledger_and_writes_no_letter(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    digest = ada.header.digest
    settle(bench, Settlement([settled(ada, tells=True)], ledgers={digest: Record(4)}))

    settle(
        bench,
        Settlement(
            [settled(ada, Death.INVALID, tells=True, dead_letter=DEAD_LETTER), settled(bob)],
            ledgers={digest: Record(5)},
            counts={"requests|vip-enter": 1},
        ),
    )

    assert bench.ledgers() == {ada.header.digest: Record(4)}
    assert bench.store.dead_letters == {}
    assert bench.count("delivered|vip-enter") == 2
    assert "dead|vip-enter|invalid" not in bench.store.counts


def test_what_came_to_a_stream_since_it_was_read_stays(bench: Bench) -> None:
    bench.accept("eve", trigger="gold-enter")
    ada, bob = held_with(bench, "ada", "bob")
    (eve,) = bench.deliveries("live|gold-enter")
    bench.accept("cyd")
    bench.run(bench.one.intent(intent_of("n", ada, bob, eve)))

    settle(bench, Settlement([settled(ada), settled(bob), settled(eve)], intent_id="n"))

    assert [row.profile for row in bench.deliveries()] == [new("cyd").profile]
    assert list(bench.store.lengths()) == ["live|vip-enter"]
    assert bench.count("delivered|vip-enter") == 2
    assert bench.count("delivered|gold-enter") == 1


def test_of_a_stream_only_what_was_still_in_it_is_counted(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.run(bench.one.intent(intent_of("n", ada, bob)))
    settle(bench, Settlement([settled(ada, Skip.DUPLICATE)]))

    settle(bench, Settlement([settled(ada), settled(bob)], intent_id="n"))

    assert bench.store.lengths() == {}
    assert bench.count("skipped|vip-enter|duplicate") == 1
    assert bench.count("delivered|vip-enter") == 1


def test_a_late_settlement_meets_no_new_entry_after_the_clock_was_set_back(bench: Bench) -> None:
    bench.accept_ahead("ada", 3_600)
    take(bench)
    (ada,) = bench.deliveries()
    late = Settlement([settled(ada, Skip.DUPLICATE)])
    settle(bench, late)
    bench.accept("bob", "cyd")

    settle(bench, late)

    bob, cyd = bench.deliveries()
    assert order_of(ada.entry_id) < order_of(bob.entry_id) < order_of(cyd.entry_id)
    assert bench.count("skipped|vip-enter|duplicate") == 1


def test_ids_go_on_behind_those_of_a_removed_stream_when_the_lease_was_given_back(
    bench: Bench,
) -> None:
    bench.accept_ahead("ada", 3_600)
    take(bench)
    (ada,) = bench.deliveries()
    settle(bench, Settlement([settled(ada, Skip.DUPLICATE)]))
    bench.run(bench.one.release({}, ()))

    bench.accept("bob")
    take(bench, bench.two)

    assert order_of(ada.entry_id) < order_of(bench.deliveries()[0].entry_id)


def test_removing_another_stream_does_not_set_back_the_ids_behind_a_removed_one(
    bench: Bench,
) -> None:
    bench.accept("eve", trigger="gold-enter")
    bench.accept_ahead("ada", 3_600)
    take(bench)
    (ada,) = bench.deliveries()
    (eve,) = bench.deliveries("live|gold-enter")
    settle(bench, Settlement([settled(ada, Skip.DUPLICATE)]))

    settle(bench, Settlement([settled(eve, Skip.DUPLICATE)]))
    bench.accept("bob")

    assert order_of(ada.entry_id) < order_of(bench.deliveries()[0].entry_id)


def test_a_repeated_settlement_tells_the_end_of_the_intent_that_it_opened(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.intent(intent_of("n", ada)))
    settlement = Settlement(
        intent_id="n",
        open_seconds=30.0,
        ledgers={ada.header.digest: Record(6)},
        counts={"requests|vip-enter": 1},
    )

    first = settle(bench, settlement)
    bench.pass_seconds(1)
    again = settle(bench, settlement)

    assert first == bench.now_ms - 1_000 + 30_000
    assert again == first
    assert bench.count("requests|vip-enter") == 1


def test_a_profiles_ledger_is_written_if_any_delivery_that_it_tells_of_was_there(
    bench: Bench,
) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.accept("ada", trigger="other")
    other = bench.deliveries("live|other")[0]
    settle(bench, Settlement([settled(ada, Skip.EMPTY)]))

    settle(
        bench,
        Settlement(
            [
                settled(ada, Skip.ALREADY_THERE, tells=True),
                settled(other, Skip.ALREADY_THERE, tells=True),
                settled(bob, Skip.EMPTY),
            ],
            ledgers={
                ada.header.digest: Record(8),
                bob.header.digest: Record(9),
            },
        ),
    )

    assert bench.ledgers() == {ada.header.digest: Record(8)}


def test_a_jobs_outcomes_are_counted_for_it(bench: Bench) -> None:
    bench.accept("ada", "bob", lane="job.may")
    take(bench)
    ada, bob = bench.deliveries("job.may|vip-enter")

    settle(bench, Settlement([settled(ada), settled(bob, Skip.DUPLICATE)]))

    assert bench.count("backfill.delivered|vip-enter") == 1
    assert bench.count("backfill.skipped|vip-enter|duplicate") == 1
    assert bench.count("job|may|delivered") == 1
    assert bench.count("job|may|skipped") == 1
    assert bench.count("job|may|skipped|duplicate") == 1


def test_a_request_is_told_to_the_ledger_even_if_its_delivery_was_taken_back(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.intent(intent_of("n", ada)))
    settle(bench, Settlement([settled(ada, Skip.EMPTY)]))

    settle(
        bench,
        Settlement(
            [settled(ada, tells=True)],
            intent_id="n",
            ledgers={ada.header.digest: Record(10)},
        ),
    )

    assert bench.ledgers() == {ada.header.digest: Record(10)}
    assert bench.count("delivered|vip-enter") == 0

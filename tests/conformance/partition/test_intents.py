"""Intents, and what else the next holder is told."""

import pytest

from segrelay.worker.batch.partition import (
    Hold,
    Intent,
    Settlement,
)
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.words import Skip
from segrelay.worker.core.backoff import Backoff, Wait
from tests.conformance.partition.conftest import LEASE_SECONDS, Bench, intent_of, new
from tests.conformance.partition.steps import VIP, held_with, settle, settled, take


def test_an_intent_is_gone_by_every_way_out(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    ways = [
        Settlement(intent_id="n0"),
        Settlement(intent_id="n1", counts={"requests|vip-enter": 1}),
        Settlement(
            intent_id="n2",
            waits={"vip-enter": Wait(1, 5, 0)},
            backoffs={ada.position: Backoff(1, 1, 0, 5, 0)},
        ),
        Settlement([settled(ada)], intent_id="n3"),
    ]
    for way in ways:
        bench.run(bench.one.intent(intent_of(way.intent_id, ada)))

        assert settle(bench, way) == 0

        assert bench.store.intents == {}
        assert bench.store.open == {}


def test_an_intent_in_doubt_is_told_to_the_next_holder_and_gone_at_its_end(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    intent = intent_of("n", ada)
    bench.run(bench.one.intent(intent))
    end_ms = settle(bench, Settlement(intent_id="n", open_seconds=30.0))
    bench.run(bench.one.release({}, ()))

    seen = take(bench, bench.two)
    bench.run(bench.two.release({}, ()))
    bench.pass_seconds(30)
    later = take(bench)

    assert [(n.intent_id, n.deliveries, n.open_until_ms) for n in seen.intents] == [
        ("n", intent.deliveries, end_ms)
    ]
    assert later.intents == ()
    assert bench.store.open == {}


def test_the_end_of_a_vanished_holders_intent_is_written_once(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.intent(intent_of("n", ada)))
    bench.pass_seconds(LEASE_SECONDS)
    assert [n.open_until_ms for n in take(bench, bench.two).intents] == [0]
    end_ms = bench.run(bench.two.intents_in_doubt(["n"], 30.0, {ada.header.digest: Record(6)}))
    bench.pass_seconds(LEASE_SECONDS)
    third = bench.partition()
    take(bench, third)

    bench.run(third.intents_in_doubt(["n"], 30.0, {ada.header.digest: Record(7)}))

    assert bench.store.open == {"n": end_ms}
    assert bench.ledgers() == {ada.header.digest: Record(6)}


def test_an_intent_that_is_held_back_is_nobodys(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]

    bench.run(bench.two.hold_back(intent_of("n", ada), 30.0))

    bench.run(bench.one.release({}, ()))
    intent = take(bench).intents[0]
    assert intent.open_until_ms == bench.now_ms + 30_000
    assert intent.deliveries == (("", ada.header),)


def test_what_a_vanished_holder_rendered_is_told(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.ledgers([ada.header.digest], [ada.position]))
    bench.pass_seconds(LEASE_SECONDS)

    assert take(bench, bench.two).rendering == {ada.position}


@pytest.mark.parametrize("way", ["intent", "settle", "release"])
def test_what_was_rendered_is_forgotten_when_it_went_well(bench: Bench, way: str) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.ledgers([ada.header.digest], [ada.position]))
    match way:
        case "intent":
            bench.run(bench.one.intent(intent_of("n", ada)))
        case "settle":
            settle(bench, Settlement([settled(ada)]))
        case _:
            bench.run(bench.one.release({}, ()))

    assert bench.rendering() == []


def test_suspects_are_told_to_the_next_holder(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]

    bench.run(bench.one.release({}, (), suspects=[ada.position]))

    assert take(bench, bench.two).rendering == {ada.position}


def test_setbacks_and_waits_are_told_to_the_next_holder_until_they_are_over(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    backoff, wait = Backoff(4, 2, 1, 77, 5), Wait(3, 99, 5)
    bench.run(bench.one.intent(intent_of("n", ada, bob)))
    settle(
        bench,
        Settlement(
            intent_id="n",
            waits={"vip-enter": wait},
            backoffs={ada.position: backoff, bob.position: backoff},
        ),
    )
    settle(bench, Settlement([settled(ada)]))

    bench.pass_seconds(LEASE_SECONDS)
    holding = take(bench, bench.two)

    assert holding.waits == {"vip-enter": wait}
    assert holding.backoffs == {bob.position: backoff}


def test_a_setback_of_what_was_taken_back_meanwhile_is_not_kept(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.run(bench.one.intent(intent_of("n", ada, bob)))
    settle(bench, Settlement([settled(ada, Skip.EMPTY)]))

    backoffs = {ada.position: Backoff(4), bob.position: Backoff(4)}
    settle(bench, Settlement([settled(ada)], intent_id="n", backoffs=backoffs))

    assert bench.store.aside == {bob.position: Backoff(4)}


def test_an_intent_holds_the_trigger_of_each_delivery(bench: Bench) -> None:
    rows = tuple(
        (f"live|{trigger}|1-0", new("ada").header) for trigger in ("vip-enter", "vip-other")
    )
    take(bench)
    bench.run(bench.one.intent(Intent("n1", rows)))
    bench.pass_seconds(LEASE_SECONDS)

    [intent] = take(bench, bench.two).intents

    assert intent == Intent("n1", rows)
    assert intent.triggers == ("vip-enter", "vip-other")


def test_what_a_newer_version_has_added_to_a_record_is_ignored(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.run(bench.one.intent(intent_of("n", ada)))
    wait, backoff = Wait(3, reason="503", since_ms=7), Backoff(5, 1, 0, 9, 2, "400", "e", 7)
    kept = Settlement(waits={"vip-enter": wait}, backoffs={bob.position: backoff})
    settle(bench, kept)
    hold = Hold(bob.entry_id, bench.now_ms + 9_000, "e")
    bench.run(bench.one.release({VIP: hold}, ()))
    bench.add_to_records(b',"more"', "retry", "aside")
    bench.add_to_records(b" more", "holds")

    seen = take(bench, bench.two)

    assert (seen.waits, seen.backoffs) == ({"vip-enter": wait}, {bob.position: backoff})
    assert seen.holds == {VIP: hold}
    assert [n.deliveries for n in seen.intents] == [intent_of("n", ada).deliveries]

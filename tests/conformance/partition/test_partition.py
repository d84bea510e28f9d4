"""What everybody may expect of a partition, wherever it is kept."""

import random
from typing import Any

import orjson
import pytest

from tests.conformance.partition.conftest import (
    LATE_SECONDS,
    LEASE_SECONDS,
    RETENTION_SECONDS,
    Bench,
    new,
    note_of,
)
from worker.batch.partition import (
    Delivery,
    Hold,
    Letter,
    Note,
    NotedDelivery,
    Settled,
    Settlement,
    Stretch,
)
from worker.contract.keys import REACHED_KEPT
from worker.contract.words import Death, Direction, Skip
from worker.core.backoff import Setback, Wait
from worker.errors import LeaseLost

VIP = "live|vip-enter"
LETTER = Letter("insider.0.1f", "c4", b'{"reason":"refused"}', b'{"id":"insider.0.1f",\n"a":1}')


def take(bench: Bench, partition: Any = None) -> Any:
    holding = bench.run((partition or bench.one).take())
    assert holding is not None
    return holding


def held_with(bench: Bench, *people: str) -> list[Delivery]:
    bench.accept(*people)
    take(bench)
    return bench.deliveries()


def settle(bench: Bench, settlement: Settlement, partition: Any = None) -> int:
    return bench.run((partition or bench.one).settle(settlement))


def test_a_lease_is_held_by_one(bench: Bench) -> None:
    take(bench)

    assert bench.run(bench.two.take()) is None


def test_a_lapsed_lease_can_be_taken_and_then_the_old_holder_has_lost_it(bench: Bench) -> None:
    delivery = held_with(bench, "ada")[0]
    bench.pass_seconds(LEASE_SECONDS)

    take(bench, bench.two)

    for lost in (
        bench.one.ledgers([delivery.header.digest]),
        bench.one.note(note_of("n", delivery)),
        bench.one.settle(Settlement([Settled(delivery)])),
        bench.one.open_notes(["n"], 30.0, {}),
    ):
        with pytest.raises(LeaseLost):
            bench.run(lost)
    assert not bench.world.renew(bench.one)
    assert not bench.run(bench.one.release({}, (), keep_if_due=False)).released
    assert bench.count("delivered|vip-enter") == 0


def test_a_lapsed_lease_that_nobody_took_still_settles(bench: Bench) -> None:
    delivery = held_with(bench, "ada")[0]
    bench.pass_seconds(2 * LEASE_SECONDS)

    settle(bench, Settlement([Settled(delivery)]))

    assert bench.count("delivered|vip-enter") == 1


def test_a_renewed_lease_and_a_note_put_the_end_off(bench: Bench) -> None:
    delivery = held_with(bench, "ada")[0]
    bench.pass_seconds(LEASE_SECONDS - 1)
    assert bench.world.renew(bench.one)
    bench.pass_seconds(LEASE_SECONDS - 1)
    bench.run(bench.one.note(note_of("n", delivery)))
    bench.pass_seconds(LEASE_SECONDS - 1)

    assert bench.run(bench.two.take()) is None


def test_a_clock_that_was_set_back_takes_no_lease_from_a_holder_that_lives(bench: Bench) -> None:
    take(bench)
    bench.pass_seconds(-3_600)

    early = bench.run(bench.two.take())
    bench.pass_seconds(LEASE_SECONDS - 1)
    assert bench.world.renew(bench.one)
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


def test_a_clock_that_was_set_back_lengthens_no_open_note(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.note(note_of("n", ada)))
    settle(bench, Settlement(note_id="n", open_seconds=LATE_SECONDS))
    bench.run(bench.one.release({}, (), keep_if_due=False))
    bench.pass_seconds(-3_600)

    seen = take(bench, bench.two)
    bench.run(bench.two.release({}, (), keep_if_due=False))
    bench.pass_seconds(LATE_SECONDS)

    assert [n.open_until_ms - seen.now_ms for n in seen.notes] == [1000 * LATE_SECONDS]
    assert take(bench).notes == ()


def test_entries_are_read_in_steps_in_their_order(bench: Bench) -> None:
    bench.accept("ada", "bob", "cyd")

    [(first, first_is_all)] = bench.run(bench.one.read([Stretch(VIP, "", 2)]))
    [(rest, rest_is_all)] = bench.run(bench.one.read([Stretch(VIP, first[-1].entry_id, 2)]))

    assert [e.profile for e in first + rest] == [
        b'{"email":"%s@example.com"}' % name for name in (b"ada", b"bob", b"cyd")
    ]
    assert (first_is_all, rest_is_all) == (False, True)


def test_several_streams_are_read_at_once(bench: Bench) -> None:
    bench.accept("ada", "bob")
    bench.accept("cyd", trigger="other")

    names = ("live|other", "live|no", VIP)
    found = bench.run(bench.one.read([Stretch(name, "", 9) for name in names]))

    assert [[e.profile[10:13] for e in each.entries] for each in found] == [
        [b"cyd"], [], [b"ada", b"bob"]
    ]  # fmt: skip
    assert all(each.is_all for each in found)


def test_what_is_large_leaves_one_entry_of_each_other_stream(bench: Bench) -> None:
    large = b"x" * 3_000_000
    bench.run(bench.one.accept([new(name)._replace(profile=large) for name in ("ada", "bob")]))
    bench.accept("cyd", "dan", trigger="other")

    found = bench.run(bench.one.read([Stretch(name, "", 9) for name in (VIP, "live|other")]))

    assert [(len(each.entries), each.is_all) for each in found] == [(2, True), (1, False)]


def test_an_empty_stream_is_no_stream(bench: Bench) -> None:
    delivery = held_with(bench, "ada")[0]
    bench.accept("ada", trigger="other")

    settle(bench, Settlement([Settled(delivery)]))

    assert bench.run(bench.one.streams()) == ("live|other",)


def test_settling_counts_once_however_often_it_is_called(bench: Bench) -> None:
    ada, bob, cyd = held_with(bench, "ada", "bob", "cyd")
    bench.run(bench.one.note(note_of("n", ada, bob, cyd)))
    settlement = Settlement(
        [
            Settled(ada, tells=True),
            Settled(bob, Skip.SUPERSEDED, remark="superseded"),
            Settled(cyd, Death.REFUSED, letter=LETTER),
        ],
        note_id="n",
        ledgers={ada.header.digest: b"record"},
        counts={"requests|vip-enter": 1},
        history=[b"line"],
        reached={"aa": b"[1,{}]"},
        responses=[b"record"],
    )

    settle(bench, settlement)
    once = bench.contents()
    settle(bench, settlement)

    assert bench.contents() == once
    assert once["counts"] == {
        "accepted|vip-enter": 3,
        "delivered|vip-enter": 1,
        "skipped|vip-enter|superseded": 1,
        "dead|vip-enter|refused": 1,
        "requests|vip-enter": 1,
    }
    assert once["streams"] == {}
    assert once["notes"] == {}
    assert once["responses"] == [b"record"]
    assert once["letters"] == {LETTER.letter_id: LETTER.text}
    assert once["causes"] == {"c4": LETTER.sample}
    assert once["cause_counts"] == {"c4": 1}
    assert once["ledgers"] == {ada.header.digest: b"record"}


def test_a_settlement_that_comes_again_after_others_changes_nothing(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    digest = ada.header.digest
    bench.run(bench.one.note(note_of("n1", ada)))
    old = Settlement(
        [Settled(ada, tells=True)],
        note_id="n1",
        ledgers={digest: b"old"},
        waits={"vip-enter": Wait(1, bench.now_ms + 1, 0)},
        counts={"requests|vip-enter": 1},
    )
    without_request = Settlement(
        [Settled(bob, Skip.DUPLICATE, tells=True)], ledgers={bob.header.digest: b"old"}
    )
    settle(bench, old)
    settle(bench, without_request)
    bench.accept("ada")
    later = bench.deliveries()[0]
    bench.run(bench.one.note(note_of("n2", later)))
    newest = Settlement(
        [Settled(later, tells=True)],
        "n2",
        ledgers={digest: b"new"},
        waits={"vip-enter": None},
    )
    settle(bench, newest)
    before = bench.contents()

    settle(bench, old)
    settle(bench, without_request)

    assert bench.contents() == before
    assert before["ledgers"][digest] == b"new"


def test_what_is_not_there_any_more_changes_no_ledger_and_writes_no_letter(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    digest = ada.header.digest
    settle(bench, Settlement([Settled(ada, tells=True)], ledgers={digest: b"right"}))

    settle(
        bench,
        Settlement(
            [Settled(ada, Death.INVALID, tells=True, letter=LETTER), Settled(bob)],
            ledgers={digest: b"wrong"},
            counts={"requests|vip-enter": 1},
        ),
    )

    contents = bench.contents()
    assert contents["ledgers"] == {ada.header.digest: b"right"}
    assert contents["letters"] == {}
    assert contents["counts"]["delivered|vip-enter"] == 2
    assert "dead|vip-enter|invalid" not in contents["counts"]


def test_a_repeated_settlement_tells_the_end_of_the_note_that_it_opened(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.note(note_of("n", ada)))
    settlement = Settlement(
        note_id="n",
        open_seconds=30.0,
        ledgers={ada.header.digest: b"tried"},
        counts={"requests|vip-enter": 1},
    )

    first = settle(bench, settlement)
    bench.pass_seconds(1)
    again = settle(bench, settlement)

    assert first == bench.now_ms - 1_000 + 30_000
    assert again == first
    assert bench.contents()["counts"]["requests|vip-enter"] == 1


def test_a_profiles_ledger_is_written_if_any_delivery_that_it_tells_of_was_there(
    bench: Bench,
) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.accept("ada", trigger="other")
    other = bench.deliveries("live|other")[0]
    settle(bench, Settlement([Settled(ada, Skip.EMPTY)]))

    settle(
        bench,
        Settlement(
            [
                Settled(ada, Skip.ALREADY_THERE, tells=True),
                Settled(other, Skip.ALREADY_THERE, tells=True),
                Settled(bob, Skip.EMPTY),
            ],
            ledgers={ada.header.digest: b"as it is now", bob.header.digest: b"untold"},
        ),
    )

    assert bench.contents()["ledgers"] == {ada.header.digest: b"as it is now"}


def test_the_sum_holds_after_each_way_out(bench: Bench) -> None:
    ada, bob, cyd, dan = held_with(bench, "ada", "bob", "cyd", "dan")
    ways = [
        Settlement([Settled(ada)]),
        Settlement([Settled(bob, Skip.ASSERTED)]),
        Settlement([Settled(cyd, Death.INVALID, letter=LETTER)]),
        Settlement([Settled(dan, Skip.EMPTY), Settled(ada, Skip.EMPTY)]),
    ]
    for way in ways:
        settle(bench, way)

        contents = bench.contents()
        ended = sum(
            n
            for name, n in contents["counts"].items()
            if name.split("|")[0] in {"delivered", "skipped", "dead"}
        )
        assert contents["counts"]["accepted|vip-enter"] == ended + sum(
            map(len, contents["streams"].values())
        )


def test_a_jobs_outcomes_are_counted_for_it(bench: Bench) -> None:
    bench.accept("ada", "bob", lane="job.may")
    take(bench)
    ada, bob = bench.deliveries("job.may|vip-enter")

    settle(bench, Settlement([Settled(ada), Settled(bob, Skip.DUPLICATE)]))

    assert bench.count("job|may|delivered") == 1
    assert bench.count("job|may|skipped") == 1
    assert bench.count("job|may|skipped|duplicate") == 1
    minute = bench.now_ms // 60_000
    assert bench.contents()["jobtimes"] == {
        f"may|{minute}|delivered": 1,
        f"may|{minute}|skipped": 1,
    }


def test_a_note_is_gone_by_every_way_out(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    ways = [
        Settlement(note_id="n0"),
        Settlement(note_id="n1", counts={"requests|vip-enter": 1}),
        Settlement(
            note_id="n2",
            waits={"vip-enter": Wait(1, 5, 0)},
            setbacks={ada.place: Setback(1, 1, 0, 5, 0)},
        ),
        Settlement([Settled(ada)], note_id="n3"),
    ]
    for way in ways:
        bench.run(bench.one.note(note_of(way.note_id, ada)))

        assert settle(bench, way) == 0

        assert bench.contents()["notes"] == {}
        assert bench.contents()["open"] == {}


def test_an_open_note_is_told_to_the_next_holder_and_gone_at_its_end(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    note = note_of("n", ada)
    bench.run(bench.one.note(note))
    end_ms = settle(bench, Settlement(note_id="n", open_seconds=30.0))
    bench.run(bench.one.release({}, (), keep_if_due=False))

    seen = take(bench, bench.two)
    bench.run(bench.two.release({}, (), keep_if_due=False))
    bench.pass_seconds(30)
    later = take(bench)

    assert [(n.note_id, n.deliveries, n.open_until_ms) for n in seen.notes] == [
        ("n", note.deliveries, end_ms)
    ]
    assert later.notes == ()
    assert bench.contents()["open"] == {}


def test_the_end_of_a_vanished_holders_note_is_written_once(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.note(note_of("n", ada)))
    bench.pass_seconds(LEASE_SECONDS)
    assert [n.open_until_ms for n in take(bench, bench.two).notes] == [0]
    end_ms = bench.run(bench.two.open_notes(["n"], 30.0, {ada.header.digest: b"tried"}))
    bench.pass_seconds(LEASE_SECONDS)
    third = bench.world.partition()
    take(bench, third)

    bench.run(third.open_notes(["n"], 30.0, {ada.header.digest: b"again"}))

    assert bench.contents()["open"] == {"n": end_ms}
    assert bench.contents()["ledgers"] == {ada.header.digest: b"tried"}


def test_a_note_that_is_held_back_is_nobodys(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]

    bench.run(bench.two.hold_back(note_of("n", ada), 30.0))

    bench.run(bench.one.release({}, (), keep_if_due=False))
    note = take(bench).notes[0]
    assert note.open_until_ms == bench.now_ms + 30_000
    assert [(row.place, row.digest) for row in note.deliveries] == [("", ada.header.digest)]


def test_what_a_vanished_holder_rendered_is_told(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.ledgers([ada.header.digest], [ada.place]))
    bench.pass_seconds(LEASE_SECONDS)

    assert take(bench, bench.two).rendering == {ada.place}


@pytest.mark.parametrize("way", ["note", "settle", "release"])
def test_what_was_rendered_is_forgotten_when_it_went_well(bench: Bench, way: str) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.ledgers([ada.header.digest], [ada.place]))
    match way:
        case "note":
            bench.run(bench.one.note(note_of("n", ada)))
        case "settle":
            settle(bench, Settlement([Settled(ada)]))
        case _:
            bench.run(bench.one.release({}, (), keep_if_due=False))

    assert bench.contents()["rendering"] == []


def test_suspects_are_told_to_the_next_holder(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]

    bench.run(bench.one.release({}, (), suspects=[ada.place], keep_if_due=False))

    assert take(bench, bench.two).rendering == {ada.place}


def test_a_request_is_told_to_the_ledger_even_if_its_delivery_was_taken_back(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.run(bench.one.note(note_of("n", ada)))
    settle(bench, Settlement([Settled(ada, Skip.EMPTY)]))

    settle(
        bench,
        Settlement([Settled(ada, tells=True)], note_id="n", ledgers={ada.header.digest: b"sent"}),
    )

    assert bench.contents()["ledgers"] == {ada.header.digest: b"sent"}
    assert bench.count("delivered|vip-enter") == 0


def test_setbacks_and_waits_are_told_to_the_next_holder_until_they_are_over(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    setback, wait = Setback(4, 2, 1, 77, 5), Wait(3, 99, 5)
    bench.run(bench.one.note(note_of("n", ada, bob)))
    settle(
        bench,
        Settlement(
            note_id="n",
            waits={"vip-enter": wait},
            setbacks={ada.place: setback, bob.place: setback},
        ),
    )
    settle(bench, Settlement([Settled(ada)]))

    bench.pass_seconds(LEASE_SECONDS)
    holding = take(bench, bench.two)

    assert holding.waits == {"vip-enter": wait}
    assert holding.setbacks == {bob.place: setback}


def test_a_setback_of_what_was_taken_back_meanwhile_is_not_kept(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.run(bench.one.note(note_of("n", ada, bob)))
    settle(bench, Settlement([Settled(ada, Skip.EMPTY)]))

    setbacks = {ada.place: Setback(4), bob.place: Setback(4)}
    settle(bench, Settlement([Settled(ada)], note_id="n", setbacks=setbacks))

    assert bench.contents()["aside"] == {bob.place: Setback(4)}


def test_ledgers_are_read_with_and_without_the_lease_and_lapse(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    settle(
        bench,
        Settlement([Settled(ada, tells=True)], ledgers={ada.header.digest: b"\x01\x00\xff"}),
    )
    digests = [bob.header.digest, ada.header.digest]

    assert bench.run(bench.one.ledgers(digests)) == [None, b"\x01\x00\xff"]
    assert bench.run(bench.two.peek(digests)) == [None, b"\x01\x00\xff"]
    lives_ms = bench.world.ledger_lives_ms(ada.header.digest)
    assert 0 < lives_ms <= 1_000 * RETENTION_SECONDS


def test_every_writer_of_a_ledger_gives_it_its_retention(bench: Bench) -> None:
    ada, bob = held_with(bench, "ada", "bob")
    bench.run(bench.one.note(note_of("n1", ada)))
    tried = Settlement(note_id="n1", open_seconds=30, ledgers={ada.header.digest: b"tried"})
    settle(bench, tried)
    bench.run(bench.one.note(note_of("n2", bob)))
    bench.run(bench.one.open_notes(["n2"], 30, {bob.header.digest: b"tried"}))

    for delivery in (ada, bob):
        lives_ms = bench.world.ledger_lives_ms(delivery.header.digest)
        assert 0 < lives_ms <= 1_000 * RETENTION_SECONDS


def test_a_release_says_whether_there_is_more_and_rings(bench: Bench) -> None:
    held_with(bench, "ada")
    assert bench.contents()["bell"] == ""

    release = bench.run(bench.one.release({}, (), keep_if_due=False))

    assert tuple(release) == (True, True, "live")
    assert bench.contents()["bell"] == "1"


def test_live_work_that_may_not_be_done_now_rings_no_live_bell(bench: Bench) -> None:
    take(bench)
    bench.accept("ada")
    bench.accept("bob", trigger="vip-exit", lane="backfill")
    take(bench)

    release = bench.run(bench.one.release({}, ("vip-enter",), keep_if_due=False))

    assert tuple(release) == (True, True, "backfill")
    assert bench.contents()["bell"] == "3"


def test_a_release_keeps_the_lease_where_work_came_meanwhile(bench: Bench) -> None:
    take(bench)
    bench.accept("ada")

    release = bench.run(bench.one.release({}, (), keep_if_due=True))

    assert tuple(release) == (False, True, "")
    assert bench.run(bench.two.take()) is None


@pytest.mark.parametrize("why", ["paused", "waits", "held"])
def test_what_may_not_be_done_now_is_not_due(bench: Bench, why: str) -> None:
    ada = held_with(bench, "ada")[0]
    holds, paused = {}, ()
    if why == "paused":
        paused = ("vip-enter",)
    elif why == "waits":
        bench.run(bench.one.note(note_of("n", ada)))
        wait = Wait(1, bench.now_ms + 5_000, 0)
        settle(bench, Settlement(note_id="n", waits={"vip-enter": wait}))
    else:
        holds = {VIP: Hold(ada.entry_id, bench.now_ms + 5_000)}

    release = bench.run(bench.one.release(holds, paused, keep_if_due=True))

    assert tuple(release) == (True, False, "")
    bench.pass_seconds(5)
    take(bench)
    later = bench.run(bench.one.release({}, (), keep_if_due=False))
    assert later.due


def test_what_waits_of_a_paused_job_is_not_due(bench: Bench) -> None:
    take(bench)
    bench.accept("ada", lane="job.load")
    take(bench)

    release = bench.run(bench.one.release({}, ("job.load",), keep_if_due=True))

    assert tuple(release) == (True, False, "")
    take(bench)
    assert bench.run(bench.one.release({}, ("job.other",), keep_if_due=False)).ring == "backfill"


def test_behind_a_hold_a_stream_is_due(bench: Bench) -> None:
    ada, _ = held_with(bench, "ada", "bob")
    holds = {VIP: Hold(ada.entry_id, bench.now_ms + 5_000)}

    release = bench.run(bench.one.release(holds, (), keep_if_due=False))

    assert release.due
    assert take(bench).holds == holds
    bench.run(bench.one.release({VIP: None}, (), keep_if_due=False))
    assert take(bench).holds == {}


def test_a_bell_that_was_rung_for_a_drain_to_come_is_not_rung_again(bench: Bench) -> None:
    held_with(bench, "ada")
    bench.accept("bob")

    release = bench.run(bench.one.release({}, (), keep_if_due=False))

    assert release.due
    assert not release.ring


def test_whoever_came_in_vain_is_rung_for_at_the_release(bench: Bench) -> None:
    held_with(bench, "ada")
    bench.accept("bob")
    assert bench.run(bench.two.take()) is None
    bench.accept("cyd")

    release = bench.run(bench.one.release({}, (), keep_if_due=False))

    assert release.ring == "live"
    assert bench.contents()["bell"] == "1"


def test_a_bell_that_was_answered_in_vain_is_silent_once_all_is_done(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.accept("bob")
    assert bench.run(bench.two.take()) is None
    bob = bench.deliveries()[1]
    settle(bench, Settlement([Settled(ada), Settled(bob)]))

    bench.run(bench.one.release({}, (), keep_if_due=False))

    assert bench.contents()["bell"] == ""


def test_everybody_who_was_reached_is_kept_while_they_are_few(bench: Bench) -> None:
    take(bench)
    settle(bench, Settlement(reached={"0b": b"[1,{}]", "0a": b"[1,{}]"}))
    settle(bench, Settlement(reached={"0a": b"[2,{}]"}))
    bench.run(bench.one.release({}, (), keep_if_due=False))

    assert take(bench).reached_up_to == ""
    assert bench.contents()["reached"] == {"0a": b"[2,{}]", "0b": b"[1,{}]"}


def test_of_many_who_were_reached_an_even_sample_is_kept(bench: Bench) -> None:
    take(bench)
    chance = random.Random(5)
    everybody = [chance.randbytes(10).hex() for _ in range(2 * REACHED_KEPT)]

    for first in range(0, len(everybody), 500):
        part = everybody[first : first + 500]
        settle(bench, Settlement(reached=dict.fromkeys(part, b"[1,{}]")))

    bench.run(bench.one.release({}, (), keep_if_due=False))
    kept = bench.contents()["reached"]
    assert take(bench).reached_up_to == max(kept)
    assert list(kept) == sorted(everybody)[:REACHED_KEPT]
    firsts = sum(everybody.index(one) < REACHED_KEPT for one in kept)
    assert 0.4 < firsts / REACHED_KEPT < 0.6


def test_a_note_of_an_earlier_version_is_read_with_its_one_trigger() -> None:
    rows = [["live|vip-enter|1-0", "00" * 10, "vip", "enter", 7]]

    note = Note.loads("n1", orjson.dumps(["vip-enter", rows]), 0)

    assert note.triggers == ("vip-enter",)
    assert (note.deliveries[0].time_us, note.deliveries[0].replays) == (7, 0)


def test_a_note_of_one_trigger_is_written_as_earlier_versions_read_it() -> None:
    row = NotedDelivery("live|vip-enter|1-0", b"\1" * 10, "vip", Direction.ENTER, 7, 2)

    assert orjson.loads(Note("n1", (row,)).dumps()) == [
        "vip-enter",
        [["live|vip-enter|1-0", "01" * 10, "vip", "enter", 7, 2]],
    ]


def test_a_note_holds_the_trigger_of_each_delivery(bench: Bench) -> None:
    rows = tuple(
        NotedDelivery(f"live|{trigger}|1-0", bytes([n]) * 10, "vip", Direction.ENTER, 7)
        for n, trigger in enumerate(("vip-enter", "vip-other"))
    )
    holder = bench.world.partition()
    bench.world.run(holder.take())
    bench.world.run(holder.note(Note("n1", rows)))
    bench.pass_seconds(60)

    holding = bench.world.run(bench.world.partition().take())

    assert holding.notes == (Note("n1", rows),)
    assert holding.notes[0].triggers == ("vip-enter", "vip-other")

"""What everybody may expect of a partition, wherever it is kept."""

import random

import pytest

from segrelay.worker.batch.partition import Hold, ReadEntries, ReadRange, Settlement
from segrelay.worker.contract.keys import REACHED_KEPT
from segrelay.worker.core.backoff import Wait
from tests.conformance.partition.conftest import Bench, intent_of, new
from tests.conformance.partition.steps import VIP, held_with, settle, settled, take

EMPTY_STREAMS = pytest.mark.parametrize("beside", [0, 300], ids=["few streams", "many"])
"""Many are read in several round trips."""


def read(bench: Bench, beside: int, *ranges: ReadRange) -> list[ReadEntries]:
    """Read, with so many empty streams beside."""
    empty = [ReadRange(f"live|empty{number}", "", 2 + number % 9) for number in range(beside)]
    return bench.run(bench.one.read([*ranges, *empty]))[: len(ranges)]


@EMPTY_STREAMS
def test_entries_are_read_in_steps_in_their_order(bench: Bench, beside: int) -> None:
    bench.accept("ada", "bob", "cyd")

    [(first, first_is_all)] = read(bench, beside, ReadRange(VIP, "", 2))
    [(rest, rest_is_all)] = read(bench, beside, ReadRange(VIP, first[-1].entry_id, 2))

    assert [e.profile[10:13] for e in first + rest] == [b"ada", b"bob", b"cyd"]
    assert (first_is_all, rest_is_all) == (False, True)


@EMPTY_STREAMS
def test_several_streams_are_read_at_once(bench: Bench, beside: int) -> None:
    bench.accept("ada", "bob")
    bench.accept("cyd", trigger="other")

    names = ("live|other", "live|no", VIP)
    found = read(bench, beside, *(ReadRange(name, "", 9) for name in names))

    assert [[e.profile[10:13] for e in each.entries] for each in found] == [
        [b"cyd"], [], [b"ada", b"bob"]
    ]  # fmt: skip
    assert all(each.is_all for each in found)


def test_what_is_large_leaves_one_entry_of_the_streams_that_are_read_later(bench: Bench) -> None:
    large = b"x" * 3_000_000
    bench.run(bench.one.accept([new(name)._replace(profile=large) for name in ("ada", "bob")]))
    bench.accept("cyd", "dan", trigger="other")

    found = bench.run(bench.one.read([ReadRange(name, "", 90) for name in (VIP, "live|other")]))

    assert [(len(each.entries), each.is_all) for each in found] == [(2, True), (1, False)]


def test_who_takes_a_partition_learns_which_streams_it_has(bench: Bench) -> None:
    bench.accept("ada", trigger="other")
    bench.accept("bob", lane="backfill")

    assert bench.run(bench.one.take()).streams == ("backfill|vip-enter", "live|other")


def test_a_release_says_whether_there_is_more_and_rings(bench: Bench) -> None:
    held_with(bench, "ada")
    assert bench.store.wakeup == ""

    release = bench.run(bench.one.release({}, ()))

    assert tuple(release) == (True, True, "live")
    assert bench.store.wakeup == "1"


def test_live_work_that_may_not_be_done_now_rings_no_live_bell(bench: Bench) -> None:
    take(bench)
    bench.accept("ada")
    bench.accept("bob", trigger="vip-exit", lane="backfill")
    take(bench)

    release = bench.run(bench.one.release({}, ("vip-enter",)))

    assert tuple(release) == (True, True, "backfill")
    assert bench.store.wakeup == "3"


def test_a_release_keeps_the_lease_where_work_came_meanwhile(bench: Bench) -> None:
    take(bench)
    bench.accept("ada")

    release = bench.run(bench.one.release({}, (), keep_for=("live", "backfill")))

    assert tuple(release) == (False, True, "")
    assert bench.run(bench.two.take()) is None


def test_a_release_keeps_the_lease_only_for_lanes_of_the_kinds_that_are_named(
    bench: Bench,
) -> None:
    take(bench)
    bench.accept("ada", lane="backfill")
    take(bench)

    release = bench.run(bench.one.release({}, (), keep_for=("live",)))

    assert tuple(release) == (True, True, "backfill")
    take(bench)
    bench.accept("bob")
    assert not bench.run(bench.one.release({}, (), keep_for=("live",))).released


@pytest.mark.parametrize("why", ["paused", "waits", "held"])
def test_what_may_not_be_done_now_is_not_due(bench: Bench, why: str) -> None:
    ada = held_with(bench, "ada")[0]
    holds, paused = {f"live|{name}": Hold("1-1", bench.now_ms) for name in ("a", "b")}, ()
    if why == "paused":
        paused = ("vip-enter",)
    elif why == "waits":
        bench.run(bench.one.intent(intent_of("n", ada)))
        wait = Wait(1, bench.now_ms + 5_000, 0)
        settle(bench, Settlement(intent_id="n", waits={"vip-enter": wait}))
    else:
        holds[VIP] = Hold(ada.entry_id, bench.now_ms + 5_000)

    release = bench.run(bench.one.release(holds, paused, keep_for=("live", "backfill")))

    assert tuple(release) == (True, False, "")
    bench.pass_seconds(5)
    take(bench)
    later = bench.run(bench.one.release({}, ()))
    assert later.due


def test_what_waits_of_a_paused_job_is_not_due(bench: Bench) -> None:
    take(bench)
    bench.accept("ada", lane="job.load")
    take(bench)

    release = bench.run(bench.one.release({}, ("job.load",), keep_for=("live", "backfill")))

    assert tuple(release) == (True, False, "")
    take(bench)
    assert bench.run(bench.one.release({}, ("job.other",))).wake == "backfill"


def test_behind_a_hold_a_stream_is_due(bench: Bench) -> None:
    ada, _ = held_with(bench, "ada", "bob")
    holds = {VIP: Hold(ada.entry_id, bench.now_ms + 5_000)}

    release = bench.run(bench.one.release(holds, ()))

    assert release.due
    assert take(bench).holds == holds
    bench.run(bench.one.release({VIP: None}, ()))
    assert take(bench).holds == {}


@pytest.mark.parametrize("paused", [(), ("vip-enter",)])
def test_a_bell_that_was_rung_for_a_drain_to_come_is_not_rung_again(
    bench: Bench, paused: tuple[str, ...]
) -> None:
    held_with(bench, "ada")
    bench.accept("bob")

    release = bench.run(bench.one.release({}, paused))

    assert tuple(release) == (True, not paused, "")
    assert bench.store.wakeup == "1"


def test_whoever_came_in_vain_is_rung_for_at_the_release(bench: Bench) -> None:
    held_with(bench, "ada")
    bench.accept("bob")
    assert bench.run(bench.two.take()) is None
    bench.accept("cyd")

    release = bench.run(bench.one.release({}, ()))

    assert release.wake == "live"
    assert bench.store.wakeup == "1"


def test_a_bell_that_was_answered_in_vain_is_silent_once_all_is_done(bench: Bench) -> None:
    ada = held_with(bench, "ada")[0]
    bench.accept("bob")
    assert bench.run(bench.two.take()) is None
    bob = bench.deliveries()[1]
    settle(bench, Settlement([settled(ada), settled(bob)]))

    bench.run(bench.one.release({}, ()))

    assert bench.store.wakeup == ""


def test_everybody_who_was_reached_is_kept_while_they_are_few(bench: Bench) -> None:
    take(bench)
    settle(bench, Settlement(reached={"0b": b"[1,{}]", "0a": b"[1,{}]"}))
    settle(bench, Settlement(reached={"0a": b"[2,{}]"}))
    bench.run(bench.one.release({}, ()))

    assert take(bench).reached_up_to == ""
    assert bench.reached() == {"0a": b"[2,{}]", "0b": b"[1,{}]"}


def test_of_many_who_were_reached_an_even_sample_is_kept(bench: Bench) -> None:
    take(bench)
    chance = random.Random(5)
    everybody = [chance.randbytes(10).hex() for _ in range(2 * REACHED_KEPT)]

    for first in range(0, len(everybody), 500):
        part = everybody[first : first + 500]
        settle(bench, Settlement(reached=dict.fromkeys(part, b"[1,{}]")))

    bench.run(bench.one.release({}, ()))
    kept = bench.reached()
    assert take(bench).reached_up_to == max(kept)
    assert list(kept) == sorted(everybody)[:REACHED_KEPT]
    firsts = sum(everybody.index(one) < REACHED_KEPT for one in kept)
    assert 0.4 < firsts / REACHED_KEPT < 0.6

"""What a sync does not believe: scans that are incomplete, late, or shrink a lot."""

import pytest

from segrelay.producer.sync.step import confirm
from segrelay.producer.sync.store import Phase, Run
from tests.integration.producer.sync_world import person


def test_a_truncated_scan_takes_nobody_out_even_if_a_person_confirms_it(world):
    world.members(250)
    world.switch(scan_ends_after_rows=120)
    syncing = world.syncing()

    run = world.run()

    assert run.phase is Phase.CONFIRM
    assert "incomplete: 120 of 250" in run.doubt
    assert world.deliveries() == []
    assert syncing.store.take()
    assert confirm(syncing.store, run) == 130
    while syncing.step().more:
        pass

    run = syncing.store.peek()
    assert (run.phase, run.left, run.stayed) == (Phase.IDLE, 0, 130)
    assert world.deliveries() == []


@pytest.mark.parametrize(
    ("members", "gone", "asks"),
    [
        (9, 9, False), (10, 10, True), (12, 9, False), (50, 10, True), (100, 10, False),
        (100, 11, True), (1_000, 100, False), (100_000, 100, False), (100_000, 101, True),
    ],
)  # fmt: skip
def test_a_tenth_of_the_members_or_a_hundred_may_be_gone_and_always_nine(members, gone, asks):
    run = Run(gone={"insider": gone}, seen={"insider": members - gone}, rows=members)

    assert bool(run.doubts()) is asks


def test_a_word_that_comes_during_the_next_scan_counts(world):
    world.members(300)
    world.moves("exit", range(101))
    world.run()
    syncing = world.syncing()
    run, now_ms = syncing.store.take()
    following = run.following("vip", ["insider"], now_ms)
    syncing.store.save(following)

    confirm(syncing.store, following)
    while syncing.step().more:
        pass

    assert len(world.deliveries()) == 101


def test_a_row_that_a_scan_leaves_out_takes_nobody_out(world):
    world.members(900)
    world.switch(hidden_rows=0.005)

    run = world.run()

    assert (run.phase, run.left) == (Phase.IDLE, 0)
    assert run.stayed > 0
    assert world.deliveries() == []


def test_repeated_rows_are_one_member(world):
    world.people(*(person(n, "vip") for n in range(500)))
    world.switch(repeated_rows=1.0)

    run = world.run(small_steps=True)

    assert (run.rows, run.entered) == (504, 500)


def test_profiles_that_share_an_identity_do_not_make_a_scan_incomplete(world):
    world.people(*(person(n, "vip", email=f"p{n % 150}@example.com") for n in range(200)))
    world.run()
    world.moves("exit", (199, 120))

    run = world.run()

    assert (run.phase, run.left) == (Phase.IDLE, 1)


def test_a_scan_whose_tokens_expire_begins_anew_and_ends(world):
    world.people(*(person(n, "vip") for n in range(250)))
    world.switch(page_token_seconds=0.000_001)

    run = world.run()

    assert run.last["outcome"] == "expired"
    assert run.entered == 100
    world.switch(page_token_seconds=300.0)
    assert world.run().entered == 150


@pytest.mark.parametrize("offset", [-400.0, 400.0])
def test_a_clock_that_is_off_is_not_believed(world, offset):
    world.people(person(1, "vip"))
    world.switch(date_offset_seconds=offset)

    step = world.syncing().step(forced=True)

    assert "clock" in step.line
    assert step.wait_seconds > 0
    assert world.deliveries() == []

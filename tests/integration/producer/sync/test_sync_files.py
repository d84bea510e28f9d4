"""A sync whose source is the newest export in a folder."""

import pytest

from producer.sync.run import Phase
from worker.errors import UsageWrong


def test_the_newest_export_says_who_is_in_the_audience(world, exports):
    exports("1.csv", range(2_500), minutes_ago=30)
    world.run()
    world.clear()
    exports("2.csv", range(40, 2_501), minutes_ago=20)

    run = world.run(small_steps=True)

    assert (run.rows, run.entered, run.left) == (2_461, 1, 40)
    assert world.deliveries()[0] == ("enter", "p2500@example.com")
    assert len(world.deliveries()) == 41
    assert {header[5] for header in world.headers()} == {run.at_us}


def test_an_export_that_was_read_before_has_nothing_new_to_tell(world, exports):
    exports("1.csv", range(10), minutes_ago=30)
    world.run()
    world.clear()

    run = world.run()

    assert (run.last["outcome"], world.deliveries()) == ("unchanged", [])
    exports("2.csv", range(11), minutes_ago=20)
    assert world.run().entered == 1


def test_an_older_export_than_the_last_is_refused(world, exports):
    newest = exports("2.csv", range(10), minutes_ago=20)
    exports("1.csv", range(5), minutes_ago=30)
    world.run()
    newest.unlink()

    with pytest.raises(UsageWrong, match="older than the one"):
        world.syncing().step(forced=True)


def test_an_export_that_is_still_being_written_is_left(world, exports):
    exports("2.csv", range(10), minutes_ago=0)
    exports("3.csv.part", range(10), minutes_ago=10)

    with pytest.raises(UsageWrong, match="no complete file"):
        world.syncing().step(forced=True)


def test_an_export_with_bad_rows_takes_nobody_out(world, exports):
    exports("1.csv", range(10), minutes_ago=30)
    world.run()
    world.clear()
    exports("2.csv", range(5), minutes_ago=20, damage="\ufffd\x00,broken,row,with,more\n")

    run = world.run()

    assert run.phase is Phase.CONFIRM
    assert "can't be read" in run.doubt
    assert world.deliveries() == []


def test_an_export_that_changes_while_it_is_read_is_read_anew(world, exports):
    exports("1.csv", range(3_000), minutes_ago=30)
    syncing = world.syncing()
    assert syncing.step(forced=True, is_over=lambda: True).more
    exports("1.csv", range(3_001), minutes_ago=20)

    while syncing.step().more:
        pass

    run = syncing.book.peek()
    assert (run.last["outcome"], run.entered, run.restarts) == ("done", 3_001, 1)


def test_whom_only_the_export_before_held_leaves_with_the_next_run(world, exports):
    exports("1.csv", range(3_000), minutes_ago=30)
    syncing = world.syncing()
    assert syncing.step(forced=True, is_over=lambda: True).more
    exports("1.csv", range(1, 3_000), minutes_ago=20)
    while syncing.step().more:
        pass
    world.clear()

    run = world.run()

    assert (run.last["outcome"], run.left) == ("done", 1)
    assert world.run().last["outcome"] == "unchanged"

"""Runs that compare with the ledger: members whose webhook got lost come back, or leave."""

import pytest

from segrelay.producer.events.payloads import Payload, RowForm, format_time
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.sync.store import Mark, Phase
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.redis.accept import ENTRANT_DAYS
from segrelay.worker.contract.words import Direction
from tests.configuration import DELETE, insider, trigger
from tests.integration.producer.sync_world import (
    ENTERS,
    deliver,
    emails,
    enter_by_webhook,
    partition_of,
    person,
    standing_still,
)
from tests.members import marks_of, set_marks

EVERYBODY = range(50)
DAY_US = 86_400_000_000


@pytest.fixture
def members(world):
    """Let a sync know fifty members, whose entrances were delivered."""
    run = world.members(len(EVERYBODY), *(person(n) for n in range(100, 300)))
    deliver(world, Direction.ENTER, EVERYBODY, run.at_us)
    world.switch(date_offset_seconds=60.0)
    return run.at_us


def mark_of(world, number, destination="insider"):
    key = f"email:p{number}@example.com"
    return marks_of(world.client, partition_of(world, key, destination), "vip").get(key)


def told(world):
    return {(direction, email) for direction, email in world.deliveries()}


def test_who_left_by_webhook_and_is_back_enters_again_with_the_next_run(world, members):
    deliver(world, Direction.EXIT, range(10), members + 1)

    first, waiting = world.run(), told(world)
    second = world.run()

    assert (first.entered, first.left, first.repaired) == (0, 0, 10)
    assert waiting == {("enter", email) for email in emails(range(10))}
    assert {(one.lane, one.header.time_us) for one in world.waiting()} == {("live", first.at_us)}
    assert (second.repaired, len(world.waiting())) == (0, 10)
    assert "0 entered, 0 left, 10 repaired" in first.line()
    assert first.last["repaired"] == 10


def test_who_entered_by_webhook_or_row_and_is_gone_leaves_with_the_next_run(world, members):
    form = RowForm("vip", "", "enter", format_time(members + 1))
    row = world.publisher.draft([Payload(b"", person(100))], form, PublishOptions())
    world.publisher.write_draft(row)
    deliver(world, Direction.ENTER, [100], members + 1)
    enter_by_webhook(world, range(101, 109), members + 1)

    run = world.run()

    assert (run.entered, run.left, run.repaired) == (0, 0, 9)
    assert told(world) == {("exit", email) for email in emails(range(100, 109))}
    assert world.known() == emails(EVERYBODY)


def test_what_changed_since_the_scan_began_is_left_to_the_next_run(world, members):
    later = members + 200_000_000
    deliver(world, Direction.EXIT, range(10), later)
    enter_by_webhook(world, range(100, 109), members + 1)
    deliver(world, Direction.ENTER, range(100, 109), later)

    first, waiting = world.run(), told(world)
    world.switch(date_offset_seconds=300.0)
    second = world.run()

    assert (first.repaired, waiting) == (0, set())
    assert (second.entered, second.left, second.repaired) == (0, 0, 19)


def test_many_who_are_stale_wait_for_a_word(world, members):
    enter_by_webhook(world, range(100, 260), members + 1)

    run = world.run()

    assert run.phase is Phase.CONFIRM
    assert "160 of 210 members gone" in run.doubt
    assert told(world) == set()


def test_a_name_is_forgotten_once_its_exit_was_delivered(world, members):
    enter_by_webhook(world, range(100, 110), members + 1)
    deliver(world, Direction.EXIT, range(100, 110), members + 30_000_000)

    run = world.run()

    assert (run.phase, run.left, run.repaired, told(world)) == (Phase.IDLE, 0, 0, set())
    assert world.known() == emails(EVERYBODY)


def test_a_name_whose_entrance_waits_is_kept_for_a_month(world, members):
    enter_by_webhook(world, [100], members + 1)
    partition = partition_of(world, "email:p100@example.com")
    world.client.delete(partition.ledger(digest_of("email:p100@example.com")))

    world.run()
    kept = mark_of(world, 100)
    old_ms = members // 1_000 - ENTRANT_DAYS * 86_400_000
    mark = b"0 %d" % old_ms
    set_marks(world.client, partition, "vip", {"email:p100@example.com": mark})
    run = world.run()

    assert kept
    assert (mark_of(world, 100), run.gone, told(world)) == (None, {"insider": 0}, set())


def test_who_enters_again_while_a_run_stands_still_keeps_their_name(world, members):
    enter_by_webhook(world, [100], members + 1)
    deliver(world, Direction.EXIT, [100], members + 30_000_000)
    standing = standing_still(
        world,
        lambda change: change.member.becomes == b"",
        meanwhile=lambda: enter_by_webhook(world, [100], members + 40_000_000),
    )

    world.run(publisher=standing)
    kept = mark_of(world, 100)
    run = world.run()

    assert kept
    assert run.repaired == 1


@pytest.mark.parametrize("on", ["enter", "exit"])
def test_a_destination_has_only_the_differences_that_its_triggers_can_repair(world, on):
    url = world.sandbox.url
    ways = {"enter": {}, "exit": {"template": "insider/exit.jsonnet", "url": DELETE}}
    options = {"destination": "one", "on": on, "template": ENTERS, **ways[on]}
    world.configure(
        insider("one", base_url=url, authorization="insider"),
        trigger("one-a", **options),
        trigger("one-b", **options),
    )
    world.people(*(person(n, "vip") for n in EVERYBODY), person(100))
    scanned_us = world.run().at_us
    deliver(world, Direction.ENTER, [*EVERYBODY], scanned_us)
    world.switch(date_offset_seconds=60.0)
    enter_by_webhook(world, [100], scanned_us + 1)
    deliver(world, Direction.EXIT, range(5), scanned_us + 1)
    deliver(world, Direction.EXIT, range(5), scanned_us + 1, "one")
    if on == "enter":
        deliver(world, Direction.ENTER, [100], scanned_us + 1, "one")

    run = world.run()

    repaired = {(one.trigger, one.header.direction) for one in world.waiting()}
    both = {("insider-enter", "enter"), ("insider-exit", "exit")}
    assert repaired == both | ({("one-a", on), ("one-b", on)} if on == "enter" else set())
    assert run.repaired == (11 if on == "enter" else 6)
    assert mark_of(world, 100, "one") is None


def test_what_was_repaired_and_still_differs_is_repaired_again_after_a_while(world, members):
    deliver(world, Direction.EXIT, range(10), members + 1)
    world.run()
    world.clear()

    soon = world.run(repair_every_seconds=3_600.0)
    due = world.run(repair_every_seconds=0.0)
    again = world.run()

    assert (soon.repaired, due.repaired, again.repaired) == (0, 10, 0)


def test_a_file_that_was_read_is_compared_with_the_ledger_again_after_a_while(world, exports):
    world.configure(source="file:exports/*.csv")
    exports("1.csv", EVERYBODY, minutes_ago=90)
    run = world.run()
    deliver(world, Direction.ENTER, EVERYBODY, run.at_us)
    deliver(world, Direction.EXIT, range(5), run.at_us - 1)

    soon = world.run(repair_every_seconds=3_600.0)
    due = world.run(repair_every_seconds=0.0)

    assert (soon.last["outcome"], due.last["outcome"]) == ("unchanged", "done")


def test_a_mark_tells_which_exit_was_answered():
    mark = Mark(3, b"0123456789ab", answered_us=DAY_US)

    assert Mark.loads(mark.dumps()) == mark
    assert Mark.loads(mark._replace(answered_us=0).dumps()) == mark._replace(answered_us=0)


def test_who_is_in_a_file_stays_in_although_a_late_webhook_comes_between_look_and_write(
    world, exports
):
    world.configure(source="file:exports/*.csv")
    exports("1.csv", EVERYBODY, minutes_ago=90)
    world.run()
    exports("2.csv", range(51), minutes_ago=60)
    early_us = world.run().at_us - DAY_US // 24
    exports("3.csv", range(52), minutes_ago=30)
    standing = standing_still(
        world,
        lambda change: change.event,
        meanwhile=lambda: enter_by_webhook(world, [51], early_us),
    )

    run = world.run(publisher=standing)

    assert (run.entered, run.left, run.repaired) == (1, 0, 0)
    assert world.inside() == emails([51])
    assert not Mark.loads(mark_of(world, 51)).is_name


def test_who_moves_while_an_export_is_made_is_left_to_the_next(world, exports):
    world.configure(source="file:exports/*.csv")
    exports("1.csv", EVERYBODY, minutes_ago=90)
    first_us = world.run().at_us
    deliver(world, Direction.ENTER, EVERYBODY, first_us)
    exports("2.csv", EVERYBODY, minutes_ago=60)
    moved_us = first_us + 20 * 60_000_000
    deliver(world, Direction.EXIT, range(5), moved_us)
    enter_by_webhook(world, range(100, 105), moved_us)
    world.clear()

    second, waiting = world.run(), told(world)
    again = world.run(repair_every_seconds=0.0)
    exports("3.csv", EVERYBODY, minutes_ago=30)
    third = world.run()

    assert (second.repaired, again.repaired, waiting) == (0, 0, set())
    assert (third.entered, third.left, third.repaired) == (0, 0, 10)
    assert told(world) == {
        *(("enter", email) for email in emails(range(5))),
        *(("exit", email) for email in emails(range(100, 105))),
    }

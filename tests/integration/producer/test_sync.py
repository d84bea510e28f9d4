"""A sync against Lytics' stand-in and a real Redis, step by step."""

import os
import time
from collections.abc import Iterator

import orjson
import pytest
from typer.testing import CliRunner

from ops.cli.main import app
from ops.sandbox.process import SandboxProcess
from producer.publishing.quarantine import Quarantine
from producer.sync.book import SyncBook
from producer.sync.run import Phase
from producer.sync.step import confirm
from tests.integration.producer.sync_world import CHANGE, World, person
from worker.errors import LyticsRefused, UsageWrong

STATE, SKIP_HOOK = 1, 2
CALM = {
    "error_shares": {}, "page_token_seconds": 300.0, "status_as_text": False, "token": "",
    "scan_ends_after_rows": 0, "repeated_rows": 0.0, "hidden_rows": 0.0, "date_offset_seconds": 0.0,
}  # fmt: skip


class DyingBook(SyncBook):
    """Its process dies at the second saving: behind the first write."""

    saved = 0

    def save(self, run, *, ends=False):
        if self.saved:
            raise KeyboardInterrupt
        self.saved += 1
        super().save(run, ends=ends)


class SilentBook(SyncBook):
    """Claims nothing: the tokens stay those of another run."""

    def claim(self, run):
        pass


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess() as process:
        yield process


@pytest.fixture
def world(tmp_path, redis_url, sandbox, client) -> World:
    sandbox.reset()
    sandbox.settings(lytics=CALM)
    return World(tmp_path, redis_url, sandbox, client)


def test_the_first_run_tells_of_every_member_without_journeys(world):
    world.people(*(person(n, "vip") for n in range(250)), person(900))

    run = world.run()

    assert (run.phase, run.rows, run.entered, run.left) == (Phase.IDLE, 250, 250, 0)
    assert world.deliveries() == sorted(("enter", f"p{n}@example.com") for n in range(250))
    assert {(header[0], header[6]) for header in world.headers()} == {
        ("backfill|insider-enter", STATE | SKIP_HOOK)
    }


def test_a_later_run_tells_who_joined_and_who_left(world):
    world.people(*(person(n, "vip") for n in range(250)), person(900))
    world.run()
    world.clear()
    world.move(900, "enter")
    world.move(7, "exit")
    world.move(8, "exit")

    run = world.run()

    assert (run.entered, run.left) == (1, 2)
    assert world.deliveries() == [
        ("enter", "p900@example.com"), ("exit", "p7@example.com"), ("exit", "p8@example.com"),
    ]  # fmt: skip
    assert {(header[0].partition("|")[0], header[6]) for header in world.headers()} == {
        ("live", STATE)
    }


def test_what_did_not_change_is_not_told_again(world):
    world.people(*(person(n, "vip") for n in range(250)))
    world.run()
    world.clear()

    run = world.run(small_steps=True)

    assert run.rows == 250
    assert world.deliveries() == []


def test_later_runs_are_newer_even_within_a_second(world):
    world.people(person(1, "vip"))

    times = [world.run().at_us for _ in range(5)]

    assert times == sorted(set(times))


def test_a_step_that_dies_behind_its_write_tells_nothing_twice(world):
    world.people(*(person(n, "vip") for n in range(250)))
    syncing = world.syncing(book=DyingBook(world.client, "vip", 4))
    with pytest.raises(KeyboardInterrupt):
        syncing.step(forced=True)
    assert len(world.deliveries()) == 250
    world.client.hdel("segrelay:sync:vip", "lock")

    run = world.run()

    assert len(world.deliveries()) == 250
    assert (run.phase, run.shared) == (Phase.IDLE, 0)


def test_a_run_that_was_replaced_changes_nothing(world):
    world.people(*(person(n, "vip") for n in range(50)))
    for place in world.places():
        world.client.hset(place.synctokens, "vip", "of another run")
    syncing = world.syncing(book=SilentBook(world.client, "vip", 4))

    step = syncing.step(forced=True)

    assert not step.taken
    assert world.deliveries() == []
    assert syncing.book.count("insider") == 0


def test_of_two_steps_at_once_the_second_does_nothing(world):
    assert world.syncing().book.take()

    step = world.syncing().step(forced=True)

    assert not step.taken


def test_a_truncated_scan_takes_nobody_out(world):
    world.people(*(person(n, "vip") for n in range(250)))
    world.run()
    world.clear()
    world.switch(scan_ends_after_rows=120)

    run = world.run()

    assert run.phase is Phase.CONFIRM
    assert "incomplete: 120 of 250" in run.doubt
    assert world.deliveries() == []


def test_who_is_confirmed_missing_but_is_there_stays(world):
    world.people(*(person(n, "vip") for n in range(250)))
    world.run()
    world.clear()
    world.switch(scan_ends_after_rows=120)
    syncing = world.syncing()
    world.run()
    run, _ = syncing.book.take()

    assert confirm(syncing.book, run) == 130
    while syncing.step().more:
        pass

    run = syncing.book.peek()
    assert (run.phase, run.left, run.stayed) == (Phase.IDLE, 0, 130)
    assert world.deliveries() == []


def test_an_implausible_shrinking_waits_for_a_word(world):
    world.people(*(person(n, "vip") for n in range(300)))
    world.run()
    world.clear()
    for number in range(101):
        world.move(number, "exit")

    syncing = world.syncing()
    run = world.run()
    assert (run.phase, world.deliveries()) == (Phase.CONFIRM, [])
    run, _ = syncing.book.take()
    confirm(syncing.book, run)
    while syncing.step(is_over=lambda: True).more:
        pass

    assert len(world.deliveries()) == 101
    assert syncing.book.count("insider") == 199


def test_a_word_that_comes_during_the_next_scan_counts(world):
    world.people(*(person(n, "vip") for n in range(300)))
    world.run()
    world.clear()
    for number in range(101):
        world.move(number, "exit")
    world.run()
    syncing = world.syncing()
    run, now_ms = syncing.book.take()
    following = run.following("vip", ["insider"], "token", now_ms)
    syncing.book.save(following)

    confirm(syncing.book, following)
    while syncing.step().more:
        pass

    assert len(world.deliveries()) == 101


def test_a_word_for_which_nobody_asked_is_refused(world):
    world.people(person(1, "vip"))
    world.run()
    syncing = world.syncing()
    run, _ = syncing.book.take()

    with pytest.raises(UsageWrong, match="nobody's word"):
        confirm(syncing.book, run)


def test_a_row_that_a_scan_leaves_out_takes_nobody_out(world):
    world.people(*(person(n, "vip") for n in range(900)))
    world.run()
    world.clear()
    world.switch(hidden_rows=0.005)

    run = world.run()

    assert (run.phase, run.left) == (Phase.IDLE, 0)
    assert run.stayed > 0
    assert world.deliveries() == []


def test_repeated_rows_are_one_member(world):
    world.people(*(person(n, "vip") for n in range(500)))
    world.switch(repeated_rows=1.0)

    run = world.run(small_steps=True)

    assert (run.rows, run.entered, run.shared) == (504, 500, 0)


def test_profiles_that_share_an_identity_do_not_make_a_scan_incomplete(world):
    world.people(*(person(n, "vip", email=f"p{n % 150}@example.com") for n in range(200)))
    world.run()
    world.move(199, "exit")
    world.move(120, "exit")

    run = world.run()

    assert (run.phase, run.shared, run.left) == (Phase.IDLE, 49, 1)


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


def test_a_destination_that_was_added_later_gets_all_and_the_others_nothing(world):
    world.people(*(person(n, "vip") for n in range(120)))
    world.run()
    world.clear()
    world.configure(destinations=("insider", "second"))

    world.run()

    assert {header[0] for header in world.headers()} == {"backfill|second-enter"}
    assert len(world.deliveries()) == 120


def test_a_change_of_what_is_exported_is_told_once(world):
    world.configure(sync="on_change = true", more=CHANGE)
    world.people(*(person(n, "vip", first_name="Ann", score=1) for n in range(120)))
    world.run()
    world.clear()
    world.people(person(3, "vip", first_name="Anna"), person(4, "vip", score=2))

    run = world.run()
    world.run()

    assert run.changed == 1
    assert world.deliveries() == [("change", "p3@example.com")]
    assert [header[6] for header in world.headers()] == [0]


def test_another_audience_under_the_same_name_is_refused(world):
    world.people(person(1, "vip"))
    world.run()
    syncing = world.syncing(audience="other")

    with pytest.raises(UsageWrong, match="sync reset vip"):
        syncing.step(forced=True)
    assert "reset" in syncing.book.peek().problem


def test_rows_without_an_identity_are_kept_once(world):
    world.people(*(person(n, "vip", email="") for n in range(120)), person(500, "vip"))

    runs = [world.run() for _ in range(2)]

    assert [(run.unplaced, run.phase) for run in runs] == [(120, Phase.IDLE)] * 2
    assert Quarantine(world.client).totals().records == 100


def test_an_outage_ends_the_step_and_the_next_goes_on(world):
    world.people(*(person(n, "vip") for n in range(250)))
    world.switch(error_shares={"503": 1.0}, retry_after_seconds=60)

    step = world.syncing().step(forced=True)
    world.switch(error_shares={}, retry_after_seconds=1)

    assert step.wait_seconds > 0
    assert world.run().entered == 250


def test_a_refused_token_is_told_and_tried_again_later(world):
    world.switch(token="another")
    syncing = world.syncing()

    with pytest.raises(LyticsRefused):
        syncing.step(forced=True)

    assert syncing.book.peek().failures == 1
    assert syncing.book.peek().next_ms > syncing.book.now_ms() + 30_000


def test_a_forgotten_sync_begins_anew(world):
    world.people(person(1, "vip"))
    world.run()
    world.clear()

    world.syncing().book.forget(["insider"])
    world.run()

    assert world.deliveries() == [("enter", "p1@example.com")]


@pytest.fixture
def command(world, monkeypatch):
    monkeypatch.setenv("SEGRELAY_CONFIG", str(world.settings.source))

    def call(*arguments):
        result = CliRunner().invoke(app, ["sync", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def test_a_run_in_the_terminal_says_what_it_came_to(world, command):
    world.people(*(person(n, "vip") for n in range(120)))

    told = orjson.loads(command("run", "vip", "--json").stdout)

    assert (told["members"], told["last"]["outcome"], told["last"]["entered"]) == (120, "done", 120)
    assert "120 members are known" in command("status", "vip").stdout
    assert orjson.loads(command("list", "--json").stdout)[0]["phase"] == "idle"


def test_a_run_in_doubt_exits_with_one_and_a_person_confirms_it(world, command):
    world.people(*(person(n, "vip") for n in range(300)))
    command("run", "vip")
    world.clear()
    for number in range(150):
        world.move(number, "exit")

    doubted = command("run", "vip")
    confirmed = command("confirm", "vip", "--json")

    assert doubted.exit_code == 1
    assert "150 of 300 members are gone" in doubted.stdout
    assert orjson.loads(confirmed.stdout) == {"name": "vip", "confirmed": 150}
    assert command("run", "vip").exit_code == 0
    assert len(world.deliveries()) == 150


def test_a_reset_forgets_and_a_confirmation_without_doubt_is_refused(world, command):
    world.people(person(1, "vip"))
    command("run", "vip")

    with pytest.raises(UsageWrong, match="nobody's word"):
        command("confirm", "vip")
    told = orjson.loads(command("reset", "vip", "--yes", "--json").stdout)

    assert told == {"name": "vip", "forgotten": 1}
    assert "has never run" in command("status", "vip").stdout


def test_a_sync_that_is_not_configured_is_named(command):
    with pytest.raises(UsageWrong, match=r"no \[sync.vib\]: did you mean"):
        command("run", "vib")


FILES = 'source = "file:exports/*.csv"'


@pytest.fixture
def exports(world, tmp_path):
    """Write an export whose time is so many minutes ago."""
    world.configure(sync=FILES)
    (tmp_path / "exports").mkdir()

    def write(name, numbers, *, minutes_ago, damage=""):
        path = tmp_path / "exports" / name
        rows = "".join(f"p{n}@example.com,Ann\n" for n in numbers)
        path.write_text("email,first_name\n" + rows + damage)
        at = time.time() - 60 * minutes_ago
        os.utime(path, (at, at))
        return path

    return write


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

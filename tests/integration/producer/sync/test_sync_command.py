"""`segrelay sync` in a terminal."""

from functools import partial

import orjson
import pytest

from segrelay.worker.errors import LeaseLost, UsageWrong
from tests.commands import called
from tests.integration.producer.sync_world import person


@pytest.fixture
def command(world, monkeypatch):
    monkeypatch.setenv("SEGRELAY_CONFIG", str(world.settings.source))
    return partial(called, "sync")


def test_a_run_in_the_terminal_says_what_it_came_to(world, command):
    world.people(*(person(n, "vip") for n in range(120)))

    told = orjson.loads(command("run", "vip", "--json").stdout)

    assert (told["members"], told["last"]["outcome"], told["last"]["entered"]) == (120, "done", 120)
    assert "known: 120 members" in command("status", "vip").stdout
    assert orjson.loads(command("status", "--json").stdout)[0]["phase"] == "idle"


def test_a_run_in_doubt_waits_for_a_word_for_itself_and_its_number(world, command):
    world.members(300)
    world.moves("exit", range(150))
    doubted = command("run", "vip")
    shown = orjson.loads(command("status", "vip", "--json").stdout)["last"]
    world.moves("exit", range(150, 170))
    command("run", "vip")
    now = orjson.loads(command("status", "vip", "--json").stdout)["last"]

    assert (doubted.exit_code, doubted.stderr) == (1, ""), "the result says it, and no log"
    assert "150 of 300 members gone" in doubted.stdout
    assert (shown["gone"], now["gone"]) == (150, 170)
    for words in (("--run", shown["run"]), ("--at-most", shown["gone"])):
        with pytest.raises(
            UsageWrong, match=f"run {now['run']} .* 170 members .* Nothing was done"
        ):
            command("confirm", "vip", *map(str, words))
    assert orjson.loads(command("status", "vip", "--json").stdout)["phase"] == "confirm"
    bound = ("--run", str(now["run"]), "--at-most", "170")
    confirmed = command("confirm", "vip", *bound, "--json")
    assert orjson.loads(confirmed.stdout) == {"name": "vip", "confirmed": 170}
    assert command("run", "vip").exit_code == 0
    assert len(world.deliveries()) == 170


def test_a_reset_forgets_and_a_confirmation_without_doubt_is_refused(world, command):
    world.people(person(1, "vip"))
    command("run", "vip")

    with pytest.raises(UsageWrong, match="nobody's word"):
        command("confirm", "vip")
    told = orjson.loads(command("reset", "vip", "--yes", "--json").stdout)

    assert told == {"name": "vip", "forgotten": 1}
    assert world.syncing().store.count("insider") == 0
    assert "has never run" in command("status", "vip").stdout


def test_a_sync_that_is_not_configured_is_named(command):
    with pytest.raises(UsageWrong, match=r"no \[sync.vib\]: did you mean"):
        command("run", "vib")


def test_a_reset_whose_lock_was_taken_meanwhile_forgets_nobody(world):
    world.members(120)
    frozen = world.syncing().store
    assert frozen.take()
    world.lapse()
    world.people(person(900, "vip"))
    world.run()

    with pytest.raises(LeaseLost, match="Another step of sync 'vip' has begun"):
        frozen.forget(["insider"])

    assert world.syncing().store.count("insider") == 121
    assert world.syncing().store.peek().number == 2


def test_a_dry_run_counts_what_a_run_would_publish_and_changes_nothing(world, command):
    world.people(*(person(n, "vip") for n in range(30)))
    first = command("run", "vip", "--dry-run", "--json")
    assert orjson.loads(first.stdout)["destinations"][0]["entrances"] == 30
    assert (first.exit_code, world.deliveries()) == (1, [])
    command("run", "vip")
    world.clear()

    told = command("run", "vip", "--dry-run", "--json")

    assert orjson.loads(told.stdout)["source"] == 30
    assert (told.exit_code, world.deliveries()) == (0, [])
    assert "known: 30 members" in command("status", "vip").stdout

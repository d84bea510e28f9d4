"""`segrelay destination rename`: everything of a destination goes to its new name."""

import orjson
import pytest

from ops.cli.main import app
from ops.moving.held import HeldLease
from ops.moving.renaming import Renaming
from ops.state.status import KINDS, read_status
from tests.integration.ops.relay import payload
from worker.adapters.redis.addresses import former_names, note_addresses
from worker.batch.lookout import Stop
from worker.contract.keys import PartitionKeys
from worker.contract.settings import load_settings
from worker.errors import OperationsMustAct, UsageWrong
from worker.node.process.runtime import runtime_for

PEOPLE = 12


@pytest.fixture
def renamed(relay):
    """Exits were delivered, older enters and others wait, some lie dead; then the name changes."""
    note_addresses(relay.client, relay.settings)
    relay.publish(
        *(payload(f"p{n}@example.com", direction="exit", minute=9) for n in range(PEOPLE)),
    )
    relay.drain()
    relay.publish(payload("dead@example.com"), job="load")
    relay.spoil_profiles()
    relay.drain()
    relay.publish(*(payload(f"p{n}@example.com", minute=1) for n in range(PEOPLE)))
    relay.publish(payload("new@example.com", minute=2), job="load")
    relay.before = relay.status()
    rename(relay)
    return relay


def rename(relay, old="insider", new="insider-eu"):
    path = relay.settings.source
    text = path.read_text()
    text = text.replace(f"[destinations.{old}]", f"[destinations.{new}]")
    path.write_text(text.replace(f'destination = "{old}"', f'destination = "{new}"'))
    relay.settings = load_settings(path, environ={})
    relay.close()


def drain(relay, name="insider-eu"):
    runtime = runtime_for(relay.settings)
    try:
        for _ in range(2):
            for partition in range(relay.settings.redis.partitions):
                runtime.drain(name, partition, Stop())
    finally:
        runtime.close()


def leave_held(relay):
    """Let go of nothing: what a killed command leaves behind lapses, and is not waited for."""
    for number in range(relay.settings.redis.partitions):
        relay.client.delete(PartitionKeys("insider-eu", number).lease)


def six(found):
    return {kind: found[kind] for kind in KINDS}


def run(call):
    return orjson.loads(
        call(app, "destination", "rename", "insider", "insider-eu", "--yes", "--json").stdout
    )


def test_older_enters_do_not_pass_exits_that_the_old_name_has_delivered(renamed, call):
    done = run(call)

    assert done == {"profiles": PEOPLE, "deliveries": PEOPLE + 1, "letters": 1}
    assert six(renamed.status()) == six(renamed.before)
    drain(renamed)
    found = renamed.status()
    assert found["skipped_by_reason"] == {"superseded": PEOPLE}
    assert (found["delivered"], found["waiting"]) == (PEOPLE + 1, 0)
    assert found["jobs"]["load"]["delivered"] == 1
    assert found["jobs"]["load"]["dead"] == 1
    assert found["destinations"]["insider"]["state"] == "renamed"


def test_a_move_to_another_destination_asks_the_old_ledger(renamed, call):
    result = call(app, "trigger", "move", "vip-enter", "vip-enter", "--yes", "--json")

    assert orjson.loads(result.stdout) == {"moved": PEOPLE + 1, "left": 0}
    drain(renamed)
    assert renamed.status()["skipped_by_reason"] == {"superseded": PEOPLE}


def test_a_rename_that_is_run_again_changes_nothing_and_takes_what_came_meanwhile(renamed, call):
    run(call)
    before = contents(renamed)
    assert run(call) == {"profiles": 0, "deliveries": 0, "letters": 0}
    assert contents(renamed) == before

    now = renamed.settings
    rename(renamed, "insider-eu", "insider")
    renamed.publish(payload("late@example.com", minute=3))
    renamed.settings = now
    rename(renamed)
    assert renamed.status()["orphans_mended_by"] == {
        "vip-enter": "segrelay destination rename insider insider-eu"
    }

    assert run(call)["deliveries"] == 1
    assert renamed.status()["waiting"] == PEOPLE + 2


def contents(relay):
    client = relay.client
    names = sorted(name for name in client.keys("{insider*"))
    return {name: client.dump(name) for name in names if not name.endswith(b"}lease")}


def test_nobody_drains_the_old_name_any_more(renamed, call):
    run(call)
    rename(renamed, "insider-eu", "insider")
    renamed.publish(payload("late@example.com", direction="exit"))

    renamed.drain()

    assert renamed.status()["waiting"] == PEOPLE + 2


def test_a_rename_can_be_taken_back(renamed, call):
    run(call)
    rename(renamed, "insider-eu", "insider")

    call(app, "destination", "rename", "insider-eu", "insider", "--yes")

    renamed.drain()
    found = renamed.status()
    assert (found["waiting"], found["skipped_by_reason"]) == (0, {"superseded": PEOPLE})


def test_nothing_is_renamed_while_a_worker_drains_the_old_name(renamed):
    lease = HeldLease(
        renamed.client, PartitionKeys("insider", 1), "worker:7 another", length_ms=60_000
    )
    lease.hold()

    with pytest.raises(OperationsMustAct, match="worker:7 goes on working on partition 1"):
        Renaming(renamed.client, renamed.settings, "insider", "insider-eu").run()

    assert renamed.status()["waiting"] == PEOPLE + 1
    assert not renamed.client.hlen(PartitionKeys("insider-eu", 0).counts)


def test_a_destination_with_the_same_address_is_recognised(renamed):
    assert former_names(renamed.client, renamed.settings) == {"insider-eu": "insider"}
    found = read_status(renamed.client, renamed.settings)
    assert found["former_names"] == {"insider-eu": "insider"}


@pytest.mark.usefixtures("renamed")
def test_names_that_make_no_sense_are_refused(call):
    for names, why in (
        (("insider", "gone"), "has no destination gone"),
        (("insider-eu", "insider-eu"), "still has the destination"),
        (("never", "insider-eu"), "holds nothing"),
    ):
        with pytest.raises(UsageWrong, match=why):
            call(app, "destination", "rename", *names, "--yes")

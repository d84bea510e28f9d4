"""`segrelay rename destination`: everything of a destination goes to its new name."""

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.ops.moving.leases import HeldLease
from segrelay.ops.moving.renaming import Renaming
from segrelay.ops.pause import Probe, chosen, known_names
from segrelay.ops.status.status import read_status
from segrelay.ops.status.totals import KINDS
from segrelay.worker.adapters.redis.shared_keys import former_names, note_addresses, shut_renamed
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import OperationsMustAct, UsageWrong
from tests.integration.ops.moving.dying_redis import deaths, everything, stalls
from tests.integration.ops.moving.stock import drain as drain_all
from tests.integration.ops.moving.stock import six, stock
from tests.integration.ops.relay import payload
from tests.nightly import amount

PEOPLE = 12
EVERY_TRIP = amount(11, nightly=1)
TIMES = amount(3, nightly=60)


@pytest.fixture
def renamed(relay):
    """Exits were delivered, older enters and others wait, some lie dead; then the name changes."""
    note_addresses(relay.client, relay.settings)
    stock(relay, PEOPLE)
    rename(relay)
    return relay


def rename(relay, old="insider", new="insider-eu"):
    path = relay.settings.source
    text = path.read_text()
    text = text.replace(f"[destinations.{old}]", f"[destinations.{new}]")
    path.write_text(text.replace(f'destination = "{old}"', f'destination = "{new}"'))
    relay.settings = load_settings(path, environ={})
    relay.close()


def drain(relay):
    drain_all(relay, "insider-eu")


def leave_held(relay):
    """Let go of nothing: what a killed command leaves behind lapses, and is not waited for."""
    for number in range(relay.settings.redis.partitions):
        relay.client.delete(PartitionKeys("insider-eu", number).lease)


def run(call):
    return orjson.loads(
        call(app, "rename", "destination", "insider", "insider-eu", "--yes", "--json").stdout
    )


def test_older_enters_do_not_pass_exits_that_the_old_name_has_delivered(renamed, call):
    done = run(call)

    assert done == {"profiles": PEOPLE, "deliveries": PEOPLE + 1, "dead_letters": 1}
    assert six(renamed.status()) == six(renamed.before)
    drain(renamed)
    found = renamed.status()
    assert found["skipped_by_reason"] == {"superseded": PEOPLE}
    assert (found["delivered"], found["waiting"]) == (PEOPLE + 1, 0)
    assert found["jobs"]["load"]["delivered"] == 1
    assert found["jobs"]["load"]["dead"] == 1
    assert found["destinations"]["insider"]["state"] == "renamed"


def test_a_move_to_another_destination_asks_the_old_ledger(renamed, call):
    result = call(app, "rename", "trigger", "vip-enter", "vip-enter", "--yes", "--json")

    assert orjson.loads(result.stdout) == {"moved": PEOPLE + 1, "left": 0}
    drain(renamed)
    assert renamed.status()["skipped_by_reason"] == {"superseded": PEOPLE}


def test_late_events_of_former_identities_still_go_to_the_present_ones(relay, call):
    old, new = "ann@example.com", "ann.lee@example.com"
    relay.publish(payload(old))
    relay.drain()
    call(app, "rename", "person", old, new)
    rename(relay)

    run(call)
    relay.publish(payload(old, "gold", minute=1))
    drain(relay)

    digests = {who: digest_of(f"email:{who}") for who in (old, new)}
    places = [PartitionKeys("insider-eu", number) for number in range(4)]
    ledgers = {
        who: [place for place in places if relay.client.exists(place.ledger(digest))]
        for who, digest in digests.items()
    }
    assert ledgers == {old: [], new: [places[partition_of(f"email:{new}", 4)]]}
    assert relay.status()["waiting"] == 0


def test_a_rename_that_is_run_again_changes_nothing_and_takes_what_came_meanwhile(renamed, call):
    run(call)
    before = contents(renamed)
    assert run(call) == {"profiles": 0, "deliveries": 0, "dead_letters": 0}
    assert contents(renamed) == before

    now = renamed.settings
    rename(renamed, "insider-eu", "insider")
    renamed.publish(payload("late@example.com", minute=3))
    renamed.settings = now
    rename(renamed)
    assert renamed.status()["orphans_mended_by"] == {
        "vip-enter": "segrelay rename destination insider insider-eu"
    }

    with pytest.raises(UsageWrong, match="rename destination insider insider-eu"):
        call(app, "rename", "trigger", "vip-enter", "vip-enter", "--yes")
    assert run(call)["deliveries"] == 1
    assert renamed.status()["waiting"] == PEOPLE + 2


def contents(relay):
    client = relay.client
    names = sorted(name for name in client.keys("{insider*"))
    return {name: client.dump(name) for name in names if not name.endswith(b"}lease")}


def test_resume_says_under_which_name_deliveries_wait(renamed):
    (target,) = chosen(
        known_names(renamed.client, renamed.settings), ["insider-eu"], kinds=(), everything=False
    )
    probe = Probe(renamed.client, renamed.settings, target.kind, target.name, 0)

    told = probe.outcome(1.0)

    assert told.outcome == "not_sent"
    assert f"{PEOPLE + 1} deliveries wait under its former name insider" in told.message


def test_nobody_drains_the_old_name_any_more(renamed, call):
    run(call)
    rename(renamed, "insider-eu", "insider")
    renamed.publish(payload("late@example.com", direction="exit"))

    renamed.drain()

    assert renamed.status()["waiting"] == PEOPLE + 2


def test_a_rename_can_be_taken_back(renamed, call):
    run(call)
    rename(renamed, "insider-eu", "insider")

    call(app, "rename", "destination", "insider-eu", "insider", "--yes")

    renamed.drain()
    found = renamed.status()
    assert (found["waiting"], found["skipped_by_reason"]) == (0, {"superseded": PEOPLE})


def test_nothing_is_renamed_while_a_worker_drains_the_old_name(renamed):
    lease = HeldLease(
        renamed.client, PartitionKeys("insider", 1), "worker:7 another", length_ms=60_000
    )
    lease.hold()

    with pytest.raises(OperationsMustAct, match="worker:7 goes on working on partition 1"):
        Renaming(
            renamed.client, renamed.settings, "insider", "insider-eu", patience_seconds=0.2
        ).run()

    assert renamed.status()["waiting"] == PEOPLE + 1
    assert not renamed.client.hlen(PartitionKeys("insider-eu", 0).counts)


def test_a_destination_with_the_same_address_is_recognised(renamed):
    assert former_names(renamed.client, renamed.settings) == {"insider-eu": "insider"}
    found = read_status(renamed.client, renamed.settings)
    assert found["former_names"] == {"insider-eu": "insider"}


def test_nothing_is_delivered_under_a_new_name_before_the_rename(renamed, call):
    assert shut_renamed(renamed.client, renamed.settings) == {"insider-eu": "insider"}
    note_addresses(renamed.client, renamed.settings)
    before = renamed.status()["delivered"]
    drain(renamed)
    assert renamed.status()["delivered"] == before
    assert former_names(renamed.client, renamed.settings) == {"insider-eu": "insider"}

    run(call)
    drain(renamed)
    assert renamed.status()["waiting"] == 0
    assert shut_renamed(renamed.client, renamed.settings) == {}


def test_two_destinations_that_are_both_configured_may_share_an_address(relay):
    relay.configure(other=True)
    note_addresses(relay.client, relay.settings)
    relay.configure()

    assert former_names(relay.client, relay.settings) == {}


def test_a_name_that_is_shut_is_open_again_where_both_are_configured(renamed):
    shut_renamed(renamed.client, renamed.settings)
    lease = PartitionKeys("insider-eu", 0).lease
    assert renamed.client.hget(lease, "token") == b"renamed-from:insider"

    text = renamed.settings.source.read_text()
    both = text + text[text.index("[destinations.") : text.index("[triggers")].replace("-eu", "")
    renamed.settings.source.write_text(both)
    renamed.settings = load_settings(renamed.settings.source, environ={})
    assert shut_renamed(renamed.client, renamed.settings) == {}
    assert not renamed.client.hexists(lease, "token")


@pytest.mark.usefixtures("renamed")
def test_names_that_make_no_sense_are_refused(call):
    for names, why in (
        (("insider", "gone"), "has no destination gone"),
        (("insider-eu", "insider-eu"), "still has the destination"),
        (("never", "insider-eu"), "holds nothing"),
    ):
        with pytest.raises(UsageWrong, match=why):
            call(app, "rename", "destination", *names, "--yes")


def enrich(relay):
    """Add what the old name holds besides."""
    client, place = relay.client, PartitionKeys("insider", 1)
    (stream,) = [name.decode() for name in client.smembers(place.streams) if b"live" in name]
    ((first, _), *_) = client.xrange(place.stream(stream))
    client.hset(place.aside, f"{stream}|{first.decode()}", "[1, 1, 0, 0, 0]")
    client.hset(place.intents, "n1", "[]")
    client.hset(place.open, "n1", 1)
    client.hset(place.retry, "vip-enter", "[1, 0, 0]")
    client.hset(place.jobs, mapping={"load": "7", "load|chunk": "1,2"})
    client.hset(f"{place.jobs}:source", mapping={"load": "9", "load|chunk": ""})
    client.hset(place.members("vip"), mapping={f"email:p{n}@example.com": "1 x" for n in range(9)})
    client.hset(place.synctokens, "vip", "token")
    client.zadd(place.reached, {"00": 0, "01": 0})
    client.hset(place.who, mapping={"00": "{}", "01": "{}"})
    client.xadd(place.responses, {"r": "[]"})
    client.incrby(place.responseslost, 3)
    new = PartitionKeys("insider-eu", 1)
    client.hset(new.jobs, mapping={"load": "8", "load|chunk": "5"})
    client.hincrby(new.counts, "requests|vip-enter", 2)


def test_a_rename_that_is_killed_anywhere_is_ended_by_the_next(renamed, redis_url):
    client, settings = renamed.client, renamed.settings
    enrich(renamed)

    for number, wanted in deaths(client, redis_url, renaming_of(renamed), every=EVERY_TRIP):
        found = read_status(client, settings)
        assert found["accepted"] == sum(found[kind] for kind in KINDS[1:]), number
        leave_held(renamed)
        renaming_of(renamed)(client)

        assert everything(client) == wanted, number
        assert not client.keys("{insider-eu:*}carried*")


def renaming_of(relay):
    return lambda client: Renaming(client, relay.settings, "insider", "insider-eu").run()


def test_a_rename_that_stands_still_while_workers_go_on_makes_nobody_wrong(renamed, redis_url):
    client, act = renamed.client, renaming_of(renamed)

    def leases_lapse_and_workers_drain():
        leave_held(renamed)
        drain(renamed)

    for number in stalls(
        client, redis_url, act, leases_lapse_and_workers_drain, first=5, times=TIMES
    ):
        leave_held(renamed)
        act(client)
        drain(renamed)

        found = renamed.status()
        assert found["skipped_by_reason"] == {"superseded": PEOPLE}, number
        assert (found["accepted"], found["waiting"]) == (renamed.before["accepted"], 0), number


def check(call):
    return orjson.loads(call(app, "config", "check", "--json").stdout)


@pytest.mark.usefixtures("renamed")
def test_config_check_names_a_destination_that_has_only_another_name(call):
    found = check(call)

    assert found["valid"]
    assert any("segrelay rename destination insider insider-eu" in one for one in found["warnings"])
    run(call)
    assert not any("rename" in one for one in check(call)["warnings"])


def test_config_check_names_what_redis_will_refuse(relay, call):
    relay.publish(payload("ann@example.com"))
    path = relay.settings.source
    text = path.read_text()

    path.write_text(text.replace("[delivery]", '[delivery]\nidentity = "id"'))
    found = check(call)
    assert not found["valid"]
    assert "in use with the identity `email`" in found["problems"][0]
    path.write_text(text.replace("partitions = 4", "partitions = 8"))
    assert "in use with 4 partitions" in check(call)["problems"][0]


def test_config_check_says_when_it_could_not_ask_redis(relay, call):
    path = relay.settings.source
    path.write_text(path.read_text().replace(relay.settings.redis.url, "redis://127.0.0.1:1/0"))

    found = check(call)

    assert found["valid"]
    assert "Redis was not asked" in found["notes"][0]

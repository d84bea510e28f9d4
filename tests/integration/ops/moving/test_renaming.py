"""`segrelay rename destination`: one write of a name, and everything stays where it is."""

from contextlib import closing

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.sync.run import Run
from segrelay.producer.sync.store import SyncStore
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.adapters.redis.presence import RedisProgress
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.processes import read_samples
from segrelay.worker.contract.redis.claim import (
    claim,
    former_names,
    learn_destinations,
)
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import RedisMismatch, UsageWrong
from tests.integration.ops.moving.stock import drain as drain_all
from tests.integration.ops.moving.stock import six, stock
from tests.integration.ops.relay import assert_sum, payload, started
from tests.interruptions import everything

pytestmark = pytest.mark.also_sealed(nightly=True)

PEOPLE = 12
OLD, NEW = "insider", "insider-eu"


@pytest.fixture
def stocked(relay):
    """Exits were delivered, older enters and others wait, and some lie dead."""
    stock(relay, PEOPLE)
    relay.close()
    return relay


def configure(relay, old=OLD, new=NEW):
    path = relay.settings.source
    text = path.read_text()
    text = text.replace(f"[destinations.{old}]", f"[destinations.{new}]")
    path.write_text(text.replace(f'destination = "{old}"', f'destination = "{new}"'))
    relay.settings = load_settings(path, environ={})
    relay.close()


def older(relay):
    """Return the settings of a process that was started with the former name, and its publisher."""
    settings = load_settings(relay.settings.source, environ={})
    claim(relay.client, settings)
    return settings, Publisher(relay.client, settings, waker=SilentWaker())


def run(call, *names):
    result = call(app, "rename", "destination", *(names or (OLD, NEW)), "--yes", "--json")
    return orjson.loads(result.stdout)


def drain(relay):
    claim(relay.client, relay.settings)
    drain_all(relay, NEW)


def test_a_rename_writes_a_name_and_nothing_else(stocked, call):
    before = everything(stocked.client)

    assert run(call) == {"from": OLD, "to": NEW}

    after = everything(stocked.client)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {keys.DESTINATIONS.encode()}
    assert set(after[keys.DESTINATIONS.encode()]) == {NEW.encode()}
    shown = orjson.loads(call(app, "audit", "--json").stdout)[0]
    assert (shown["what"], shown["subject"], shown["arguments"]) == (
        "rename destination",
        OLD,
        {"to": NEW},
    )


@pytest.mark.parametrize("configured_first", [False, True])
def test_older_enters_do_not_pass_exits_that_the_old_name_has_delivered(
    stocked, call, configured_first
):
    if configured_first:
        configure(stocked)
    run(call)
    if not configured_first:
        configure(stocked)

    assert six(stocked.status()) == six(stocked.before)
    drain(stocked)
    found = stocked.status()
    assert_sum(found)
    assert found["skipped_by_reason"] == {"superseded": PEOPLE}
    assert (found["delivered"], found["waiting"], found["orphaned"]) == (PEOPLE + 1, 0, 0)
    assert (found["jobs"]["load"]["delivered"], found["jobs"]["load"]["dead"]) == (1, 1)
    assert list(found["destinations"]) == [NEW]


def test_nothing_is_written_or_delivered_under_a_new_name_before_the_rename(stocked):
    configure(stocked)
    before = everything(stocked.client)

    with pytest.raises(RedisMismatch) as refused:
        stocked.publish(payload("late@example.com"))

    for command in (f"rename destination {OLD} {NEW}", f"redis add-destination {NEW}"):
        assert f"`segrelay {command}`" in refused.value.message
    assert everything(stocked.client) == before
    assert former_names(stocked.client, stocked.settings) == {NEW: OLD}
    found = stocked.status()
    assert found["former_names"] == {NEW: OLD}
    assert found["orphans_mended_by"]["vip-enter"] == f"segrelay rename destination {OLD} {NEW}"


def test_processes_with_the_former_name_go_on_at_the_same_place(stocked, call):
    settings, publisher = older(stocked)
    with closing(started(settings)) as worker:
        run(call)
        configure(stocked)
        publisher.publish([orjson.dumps(payload("late@example.com", minute=3))], PublishOptions())
        assert stocked.status()["waiting"] == PEOPLE + 2

        for number in (*range(4), *range(4)):
            worker.drain(OLD, number, Stop())

    found = stocked.status()
    assert (found["waiting"], found["skipped_by_reason"]) == (0, {"superseded": PEOPLE})
    assert list(found["destinations"]) == [NEW]
    configure(stocked, NEW, OLD)
    with pytest.raises(RedisMismatch, match=f"rename destination {NEW} {OLD}"):
        stocked.publish(payload("later@example.com"))


@pytest.mark.parametrize("first", [OLD, NEW])
def test_of_two_that_start_with_an_old_and_a_new_name_the_first_is_given_the_id(relay, first):
    other = NEW if first == OLD else OLD
    if first == NEW:
        configure(relay)
    claim(relay.client, relay.settings)

    configure(relay, first, other)

    with pytest.raises(RedisMismatch, match=f"rename destination {first} {other}"):
        claim(relay.client, relay.settings)
    assert relay.client.hkeys(keys.DESTINATIONS) == [first.encode()]


def test_two_destinations_that_are_both_configured_may_share_an_address(relay):
    relay.configure(other=True)
    claim(relay.client, relay.settings)
    relay.configure()
    claim(relay.client, relay.settings)

    assert former_names(relay.client, relay.settings) == {}


def test_a_process_without_the_secrets_recognises_a_destination_by_its_host(relay):
    claim(relay.client, relay.settings)
    known = relay.client.hgetall(keys.DESTINATIONS)
    text = relay.settings.source.read_text().replace('"secret-token"', '"env:NOT_SET"')
    relay.settings.source.write_text(text)
    relay.settings = load_settings(relay.settings.source, environ={})

    claim(relay.client, relay.settings)
    assert relay.client.hgetall(keys.DESTINATIONS) == known
    configure(relay)
    with pytest.raises(RedisMismatch, match=f"rename destination {OLD} {NEW}"):
        claim(relay.client, relay.settings)


def test_a_destination_that_a_person_calls_new_begins_with_nothing(stocked, call):
    configure(stocked)

    assert orjson.loads(call(app, "redis", "add-destination", NEW, "--json").stdout) == {
        "name": NEW,
        "changed": True,
    }
    assert "known already" in call(app, "redis", "add-destination", NEW).stdout

    stocked.publish(payload("late@example.com"))
    drain(stocked)
    found = stocked.status()
    assert (found["waiting"], found["orphaned"]) == (PEOPLE + 1, PEOPLE + 1)
    with pytest.raises(UsageWrong, match="not merged"):
        run(call)


def test_a_former_name_can_be_given_to_another_destination(stocked, call):
    run(call)
    configure(stocked)
    claim(stocked.client, stocked.settings)
    configure(stocked, NEW, OLD)

    call(app, "redis", "add-destination", OLD)
    stocked.publish(payload("late@example.com"))

    assert stocked.settings.redis.ids.of(OLD) == "insider~2"
    assert stocked.client.keys("{insider~2:*}s:*")
    found = stocked.status()
    assert (found["waiting"], found["orphaned"]) == (PEOPLE + 2, PEOPLE + 1)


def test_names_that_make_no_sense_are_refused(stocked, call):
    for names, why in (
        ((OLD, OLD), "not merged"),
        (("never", NEW), "knows no destination never; it knows: insider"),
        ((OLD, "Insider EU"), "is no name"),
    ):
        with pytest.raises(UsageWrong, match=why):
            run(call, *names)
    run(call)
    with pytest.raises(UsageWrong, match="has neither"):
        run(call, NEW, "another")
    with pytest.raises(UsageWrong, match="knows no destination insider; it knows: insider-eu"):
        run(call)
    assert stocked.client.hkeys(keys.DESTINATIONS) == [NEW.encode()]


def test_a_rename_can_be_taken_back(stocked, call):
    run(call)
    run(call, NEW, OLD)

    stocked.drain()
    found = stocked.status()
    assert (found["waiting"], found["skipped_by_reason"]) == (0, {"superseded": PEOPLE})


def test_a_pause_holds_whatever_the_destination_is_called(stocked, call):
    settings, _ = older(stocked)
    call(app, "pause", OLD, "--reason", "maintenance")
    run(call)
    with closing(started(settings)) as worker:
        assert worker.drain(OLD, 1, Stop())[0].requests == 0
    configure(stocked)
    drain(stocked)
    found = stocked.status()
    assert found["waiting"] == PEOPLE + 1
    assert found["destinations"][NEW]["state"] == "paused"

    call(app, "resume", NEW)
    drain(stocked)

    assert stocked.status()["waiting"] == 0


def test_dead_letters_from_before_are_found_by_their_ids_under_the_name_of_today(
    stocked, call, tmp_path
):
    (before,) = orjson.loads(call(app, "dlq", "list", "--json").stdout)
    run(call)
    configure(stocked)

    (after,) = orjson.loads(call(app, "dlq", "list", "--json").stdout)
    assert (after["id"], after["destination"]) == (before["id"], NEW)
    exported = tmp_path / "letters.ndjson"
    call(app, "dlq", "export", str(exported))
    call(app, "dlq", "discard", before["id"], "--yes")
    call(app, "dlq", "import", str(exported))
    there = orjson.loads(call(app, "dlq", "show", before["id"], "--json").stdout)
    assert there["destination"] == NEW
    assert_sum(stocked.status())
    why = call(app, "why", "dead@example.com", "--json").stdout
    assert before["id"] in why


def test_an_erased_person_leaves_nothing_behind_under_either_name(stocked, call):
    run(call)
    configure(stocked)

    call(app, "erase", "p1@example.com", "--yes")

    digest = digest_of("email:p1@example.com")
    assert not [name for name in stocked.client.keys("*") if digest in name]
    assert_sum(stocked.status())


def test_what_a_sync_knows_is_the_same_for_processes_with_either_name(stocked, call):
    settings, _ = older(stocked)
    store = SyncStore(stocked.client, "vip", settings.redis)
    store.take()
    store.save(Run("vip", destinations=[OLD], known=[OLD], seen={OLD: 3}), ends=True)
    run(call)
    configure(stocked)
    learn_destinations(stocked.client, stocked.settings)

    new = SyncStore(stocked.client, "vip", stocked.settings.redis).peek()

    assert (new.destinations, new.known, new.seen) == ([NEW], [NEW], {NEW: 3})
    assert store.peek().known == [OLD]


def test_a_backfill_goes_on_where_it_was_after_a_rename(stocked, call):
    settings, _ = older(stocked)
    before = routing_digest(settings)
    run(call)
    configure(stocked)
    learn_destinations(stocked.client, stocked.settings)

    assert routing_digest(stocked.settings) == before


def test_rates_are_known_over_a_rename(stocked, call):
    settings, _ = older(stocked)
    RedisProgress(stocked.client, settings).note()
    run(call)
    configure(stocked)
    learn_destinations(stocked.client, stocked.settings)

    (sample,) = read_samples(stocked.client, stocked.settings.redis.ids)

    assert set(sample.counts) == {NEW}


def test_a_redis_that_came_back_empty_gives_the_ids_that_processes_work_with(relay):
    settings, publisher = older(relay)
    relay.client.flushdb()
    publisher.publish([orjson.dumps(payload("ann@example.com"))], PublishOptions())

    relay.drain()

    assert relay.status()["delivered"] == 1
    assert settings.redis.ids.of(OLD) == OLD


def test_a_redis_that_came_back_empty_keeps_the_id_of_a_renamed_destination(stocked, call):
    run(call)
    configure(stocked)
    claim(stocked.client, stocked.settings)
    stocked.client.flushdb()

    claim(stocked.client, stocked.settings)

    fresh = load_settings(stocked.settings.source, environ={})
    claim(stocked.client, fresh)
    assert fresh.redis.ids.of(NEW) == stocked.settings.redis.ids.of(NEW) == OLD


def check(call):
    return orjson.loads(call(app, "config", "check", "--json").stdout)


def test_config_check_says_that_nothing_starts_before_the_rename(stocked, call):
    configure(stocked)
    found = check(call)

    assert not found["valid"]
    assert f"segrelay rename destination {OLD} {NEW}" in found["problems"][0]
    run(call)
    assert check(call)["valid"]


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

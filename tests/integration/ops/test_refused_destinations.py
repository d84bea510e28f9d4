"""The name of a destination stays: what would take over another one's ledger is refused."""

from contextlib import closing

import orjson
import pytest

from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import RedisMismatch
from tests.integration.ops.relay import payload, started
from tests.integration.ops.stock import stock
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


def rename(relay, old=OLD, new=NEW):
    relay.change(
        (f"[destinations.{old}]", f"[destinations.{new}]"),
        (f'destination = "{old}"', f'destination = "{new}"'),
    )


def move(relay):
    """Give the destination another address, at which the same sandbox answers."""
    relay.change(("http://127.0.0.1", "http://localhost"))


def confirm(call, name):
    found = call("redis", "confirm-destination", name, "--yes", "--json")
    return orjson.loads(found.stdout)["changed"]


def refused(relay):
    """Return why nothing starts with the configuration, and that nothing was written."""
    before = everything(relay.client)
    with pytest.raises(RedisMismatch) as error:
        claim(relay.client, relay.settings)
    assert error.value.exit_code == 2
    with pytest.raises(RedisMismatch):
        relay.publish(payload("late@example.com"))
    assert everything(relay.client) == before
    return error.value.message


def check(call):
    return orjson.loads(call("config", "check", "--json").stdout)


def test_a_new_name_of_a_known_destination_is_refused_until_a_person_confirms_it(stocked, call):
    rename(stocked)

    message = refused(stocked)
    assert f"address and the authorization of {OLD}" in message
    assert f"segrelay redis confirm-destination {NEW}" in message
    assert not check(call)["valid"]
    assert stocked.status()["refused_destinations"] == {NEW: OLD}

    assert confirm(call, NEW)
    assert check(call)["valid"]
    assert not confirm(call, NEW)
    stocked.publish(payload("ann@example.com"))
    assert len(stocked.client.keys(f"{{{NEW}:*}}s:*")) == 1


def test_another_address_of_a_known_name_is_refused_and_written_nowhere(stocked, call):
    stored = stocked.client.hgetall(keys.DESTINATIONS)
    move(stocked)

    assert "another address or authorization" in refused(stocked)
    assert stocked.status()["refused_destinations"] == {OLD: OLD}
    assert stocked.client.hgetall(keys.DESTINATIONS) == stored

    assert confirm(call, OLD)
    stocked.drain()
    found = stocked.status()
    assert (found["waiting"], found["skipped_by_reason"]) == (0, {"superseded": PEOPLE})


def test_a_name_that_another_host_takes_and_its_destination_leaves_are_both_refused(relay, call):
    claim(relay.client, relay.settings)
    rename(relay)
    former = relay.settings.source.read_text()
    begin = former.index(f"[destinations.{NEW}]")
    other = former[begin : former.index("[", begin + 1)]
    other = other.replace(NEW, OLD).replace("127.0.0.1", "localhost")
    relay.settings.source.write_text(former + other)
    relay.reload()

    refused(relay)
    assert relay.status()["refused_destinations"] == {OLD: OLD, NEW: OLD}

    assert confirm(call, NEW)
    assert relay.status()["refused_destinations"] == {OLD: OLD}


def test_renewed_credentials_need_nothing_and_whoever_lacks_them_takes_nothing_away(relay):
    claim(relay.client, relay.settings)
    stored = relay.client.hgetall(keys.DESTINATIONS)
    relay.change(('"secret-token"', '"env:NOBODY_HAS_SET_THIS"'))
    claim(relay.client, relay.settings)
    assert relay.client.hgetall(keys.DESTINATIONS) == stored
    relay.change(('"env:NOBODY_HAS_SET_THIS"', '"another-token"'))

    relay.publish(payload("ann@example.com"))

    assert relay.status()["refused_destinations"] == {}
    assert relay.client.hgetall(keys.DESTINATIONS) != stored
    rename(relay)
    assert relay.status()["refused_destinations"] == {NEW: OLD}


def test_whoever_knows_the_former_address_drains_nothing_any_more(relay, call):
    claim(relay.client, relay.settings)
    former = load_settings(relay.settings.source, environ={})
    with closing(started(former)) as worker:
        relay.deliver(payload("before@example.com"))
        lease = relay.partitions()[0].lease
        under_way = {"token": "of a drain", "until": 2**50, "length": 10_000}
        relay.client.hset(lease, mapping=under_way)
        move(relay)
        assert confirm(call, OLD)
        assert relay.client.hget(lease, "token") is None, "a drain under way loses its lease"
        relay.publish(payload("ann@example.com"))

        for number in range(4):
            with pytest.raises(RedisMismatch, match="another address"):
                worker.drain(OLD, number, Stop())

    assert relay.status()["waiting"] == 1
    with pytest.raises(RedisMismatch):
        claim(relay.client, former)
    relay.drain()
    assert relay.status()["delivered"] == 2


def test_config_check_names_what_redis_will_refuse_or_that_it_could_not_ask_it(relay, call):
    relay.publish(payload("ann@example.com"))
    path = relay.settings.source
    text = path.read_text()

    path.write_text(text.replace("[delivery]", '[delivery]\nidentity = "id"'))
    found = check(call)
    assert not found["valid"]
    assert "in use with the identity `email`" in found["problems"][0]
    path.write_text(text.replace("partitions = 4", "partitions = 8"))
    assert "in use with 4 partitions" in check(call)["problems"][0]
    path.write_text(text.replace(relay.settings.redis.url, "redis://127.0.0.1:1/0"))
    found = check(call)
    assert found["valid"]
    assert "Redis was not asked" in found["notes"][0]

"""Letters that were exported from a Redis whose data is protected in another way."""

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.worker.contract.protection import PROTECTION, SealedSecret
from segrelay.worker.contract.redis.claim import claim
from tests.configuration import table
from tests.integration.ops.relay import ENTER, payload
from tests.sealed import KEY

ANOTHER = bytes(31) + b"x"


def begin_anew(relay, secret):
    """Let the relay have an empty Redis, sealed with a secret; b"" = open."""
    relay.client.flushdb()
    PROTECTION.off()
    if secret:
        PROTECTION.use(secret, SealedSecret.of(secret, [bytes(32)]).dumps())
    relay.configure(table("protection", key=KEY) if secret else "", triggers=ENTER)


def cut_profiles(relay):
    """Let what waits lack its end."""
    for partition in relay.partitions():
        for name in relay.client.smembers(partition.streams):
            stream = partition.stream(name.decode())
            for entry_id, fields in relay.client.xrange(stream):
                relay.client.xdel(stream, entry_id)
                relay.client.xadd(stream, fields | {b"p": fields[b"p"][:-3]})


def test_a_worker_goes_on_once_another_process_has_given_an_empty_redis_another_secret(relay):
    begin_anew(relay, ANOTHER)
    relay.publish(payload("ann@example.com"))
    relay.drain()
    relay.client.flushdb()
    PROTECTION.off()
    claim(relay.client, relay.settings)
    relay.publish(payload("ann@example.com"), payload("bob@example.com"))
    present = PROTECTION.record
    PROTECTION.use(ANOTHER, b"that of the worker")

    relay.drain()
    assert PROTECTION.record == present
    relay.drain()

    assert relay.status()["delivered"] == 2


@pytest.mark.parametrize("first", [b"", bytes(32)], ids=["open", "sealed"])
@pytest.mark.parametrize("second", [b"", ANOTHER], ids=["open", "sealed"])
def test_letters_of_a_redis_with_another_protection_are_refused(
    relay, call, tmp_path, first, second
):
    """Their digests are others here, so that a person would have two ledgers."""
    begin_anew(relay, first)
    relay.publish(payload("ann@example.com"))
    cut_profiles(relay)
    relay.drain()
    relay.template("enter.jsonnet", "error 'broken'")
    relay.publish(payload("bob@example.com"))
    relay.drain()
    file = tmp_path / "letters.ndjson"
    call(app, "dlq", "export", file)
    kept = relay.status()["dead"]

    begin_anew(relay, second)
    result = call(app, "dlq", "import", file, "--json")

    assert kept == 2
    told = orjson.loads(result.stdout)
    if first == second:
        assert (told["added"], told["problems"]) == (2, [])
    else:
        assert told["added"] == 0
        assert len(told["problems"]) == 2
    assert relay.status()["dead"] == (2 if first == second else 0)

"""Letters that were exported from a Redis whose data is protected in another way."""

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.worker.contract.protection import PROTECTION, SealedSecret
from tests.configuration import table
from tests.integration.ops.relay import ENTER, payload
from tests.sealed import KEY

ANOTHER = bytes(31) + b"x"


def begin_anew(relay, secret):
    """Let the relay have an empty Redis, sealed with a secret; b"" = open."""
    relay.client.flushdb()
    PROTECTION.off()
    if secret:
        PROTECTION.use(secret, SealedSecret.of(secret, bytes(32)).dumps())
    relay.configure(table("protection", key=KEY) if secret else "", triggers=ENTER)


@pytest.mark.parametrize("first", [b"", bytes(32)], ids=["open", "sealed"])
@pytest.mark.parametrize("second", [b"", ANOTHER], ids=["open", "sealed"])
def test_letters_of_a_redis_with_another_protection_are_refused(
    relay, call, tmp_path, first, second
):
    """Their digests are others here, so that a person would have two ledgers."""
    begin_anew(relay, first)
    relay.publish(payload("ann@example.com"))
    relay.spoil_profiles()
    relay.drain()
    relay.template("enter.jsonnet", "error 'broken'")
    relay.deliver(payload("bob@example.com"))
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

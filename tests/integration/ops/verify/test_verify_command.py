"""`segrelay verify` as a person calls it."""

import random

import orjson
import pytest

from segrelay.worker.contract.keys import REACHED_KEPT
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.errors import OperationsMustAct, UsageWrong
from tests.integration.ops.relay import payload

pytestmark = pytest.mark.also_sealed


@pytest.fixture
def verify(call):
    def run(*options):
        result = call("verify", "--older-than", "0s", "--again-after", "10ms", "--json", *options)
        return result.exit_code, orjson.loads(result.stdout)

    return run


@pytest.fixture
def delivered(relay):
    """People of two audiences, one of whom has left; each sent in a request of their own."""
    for number in range(4):
        relay.deliver(payload(f"p{number}@example.com"), payload(f"p{number}@example.com", "gold"))
    relay.deliver(payload("p0@example.com", direction="exit", minute=1))
    return relay


@pytest.mark.usefixtures("delivered")
def test_what_was_delivered_and_had_time_to_show_is_found_there(verify, call, sandbox):
    code, found = verify()
    sample = verify("--sample", "2")[1]
    too_soon = orjson.loads(call("verify", "--json").stdout)

    assert (code, found["differences"]) == (0, [])
    assert found["profiles"] >= 4
    assert found["memberships"] >= 6
    assert sample["profiles"] == 2
    assert (too_soon["candidates"], too_soon["profiles"]) == (0, 0)
    with pytest.raises(UsageWrong, match="no destination 'nowhere'"):
        verify("--destination", "nowhere")
    sandbox.settings(credentials_status=401)
    with pytest.raises(OperationsMustAct, match="refuses the authorization 'Sandbox'"):
        verify()


def test_all_people_of_one_request_are_known(relay, verify):
    people = [payload(f"p{number}@example.com") for number in range(40)]
    relay.deliver(*people)
    assert relay.status()["requests"] <= len(relay.partitions())

    code, found = verify()

    assert (code, found["people"], found["profiles"]) == (0, 40, 40)
    assert found["candidates_are"] == "everybody"


def test_where_people_are_many_an_even_sample_is_said_to_be_one(relay, verify):
    chance = random.Random(3)
    for partition in relay.partitions():
        digests = sorted(chance.randbytes(10).hex() for _ in range(6_000))[:REACHED_KEPT]
        text = b'[1,{"identifiers":{}}]'
        kept = {digest: PROTECTION.seal(text, digest.encode()) for digest in digests}
        relay.client.hset(partition.who, mapping=kept)

    _, found = verify("--sample", "1")

    assert found["candidates_are"] == "an even sample"
    assert 3_500 < found["candidates"] <= 4_000
    assert 22_000 < found["people"] < 26_000


def test_a_silent_drop_is_found_and_why_takes_what_is_printed(delivered, sandbox, verify, call):
    attributes = sandbox.settings()["panel_attributes"]
    without = {name: kind for name, kind in attributes.items() if name != "lytics_computed_attr"}
    sandbox.reset()
    sandbox.settings(panel_attributes=without)
    delivered.deliver(payload("ben@example.com"))

    code, found = verify()

    assert code == 1
    wrong = {(one["audience"], one["expected"], one["found"]) for one in found["differences"]}
    assert ("vip", "inside", "outside") in wrong
    assert ("gold", "inside", "unknown") in wrong
    assert "ben@example.com" not in orjson.dumps(found).decode()
    first = found["differences"][0]
    known = orjson.loads(call("why", first["profile"], "--json").stdout)
    assert known["known"]
    assert first["audience"] in {line["audience"] for line in known["ledger"]}

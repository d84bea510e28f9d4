"""A template whose assert skips everything is told."""

from segrelay.ops.status.health import read_problems
from segrelay.worker.adapters.redis.survey import RedisProgress
from segrelay.worker.contract import keys
from tests.integration.ops.relay import payload


def sampled(relay):
    relay.client.delete(keys.PROGRESS_LOCK)
    RedisProgress(relay.client, relay.settings).note()
    found = read_problems(relay.client, relay.settings)
    return [one for one in found if one.name == "assert_skips_all"]


def test_an_assert_that_skips_all_is_a_problem_until_something_is_delivered(relay):
    assert sampled(relay) == []
    before = relay.shipped("enter.jsonnet")
    relay.template("enter.jsonnet", "assert false : 'not yet'; {}")
    relay.deliver(*[payload(f"p{n}@example.com") for n in range(25)])

    [problem] = sampled(relay)

    assert problem.subject == "vip-enter"
    assert "skipped all of the 25 events" in problem.message
    assert problem.command == "segrelay template check enter.jsonnet"
    relay.template("enter.jsonnet", before)
    relay.deliver(payload("ann@example.com"))
    assert sampled(relay) == []

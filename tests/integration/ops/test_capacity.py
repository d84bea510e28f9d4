"""`segrelay status --capacity`: what is measured is right, and what is estimated says so."""

import random
from pathlib import Path

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.ops.status import capacity
from segrelay.ops.status.standing import Condition, DestinationStanding, Standing
from segrelay.ops.status.totals import Counts, Totals
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.processes import Sample
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION
from segrelay.worker.errors import UsageWrong
from tests.integration.ops.relay import payload
from tests.members import set_marks
from tools.bench.costs import CASES, packed


def asked(call):
    return orjson.loads(call(app, "status", "--capacity", "--json").stdout)


def ledgers(client, count, first=0):
    text = packed(CASES["one audience entered"])
    pipe = client.pipeline(transaction=False)
    for number in range(first, first + count):
        partition = PartitionKeys("insider", number % 4)
        pipe.set(partition.ledger(digest_of(f"email:person{number}@example.com")), text)
    pipe.execute()


def test_an_empty_redis_is_reckoned_by_the_benchmarks_and_says_so(call):
    found = asked(call)

    assert found["profiles"] == {
        "count": 0, "bytes_each": 78.2, "counted": True, "measured": False,
    }  # fmt: skip
    assert found["time"]["per_second"] == capacity.BENCHMARK_PER_SECOND
    assert not found["time"]["per_second_measured"]
    assert found["time"]["backlog_seconds"] == 0.0
    assert "of a benchmark" in call(app, "status", "--capacity").stdout


def test_what_was_delivered_and_what_waits_is_counted(call, relay):
    relay.publish(*(payload(f"p{n}@example.com") for n in range(20)))
    relay.drain()
    relay.publish(*(payload(f"q{n}@example.com") for n in range(10)))

    found = asked(call)

    assert found["profiles"]["count"] == 20
    assert found["waiting"]["count"] == 10
    assert found["profiles"]["measured"]
    assert found["waiting"]["measured"]
    assert found["time"]["users_a_request_measured"]
    assert found["time"]["backlog_seconds"] == pytest.approx(
        10 / min(found["time"]["per_second"], *found["time"]["rate_limit_per_second"].values()),
        abs=0.1,
    )


def test_the_memory_of_profiles_is_what_redis_really_needs(call, relay):
    before = relay.client.info("memory")["used_memory"]
    ledgers(relay.client, 15_000)
    grown = relay.client.info("memory")["used_memory"] - before

    found = asked(call)

    assert found["profiles"]["count"] == 15_000
    assert found["profiles"]["counted"]
    assert found["profiles"]["bytes_each"] * 15_000 == pytest.approx(grown, rel=0.25)


def test_beyond_a_number_of_keys_profiles_are_estimated(call, relay):
    ledgers(relay.client, 20_000)
    for first in range(0, 10_000, 1_000):
        relay.client.mset({f"{{segrelay}}:x{first + n}": "x" for n in range(1_000)})

    found = asked(call)

    assert not found["profiles"]["counted"]
    assert found["profiles"]["count"] == pytest.approx(20_000, rel=0.15)
    assert "about " in call(app, "status", "--capacity").stdout


def test_more_profiles_need_more_memory_by_what_each_takes(call, relay):
    marks = {f"email:m{n}@example.com": "1" for n in range(100)}
    set_marks(relay.client, PartitionKeys("insider", 0), "vips", marks)
    ledgers(relay.client, 200)

    memory = asked(call)["memory"]

    ten, hundred = (one["bytes"] for one in memory["needed"])
    assert hundred - ten == pytest.approx(1.25 * 90_000_000 * memory["bytes_a_profile"], rel=0.01)


def sample(at_ms, settled, waits):
    return Sample(
        at_ms, {"insider": {"settled": settled, "waits": waits[0], "waits|load": waits[1]}}
    )


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], None),
        ([sample(20_000, 900, (0, 0)), sample(10_000, 0, (0, 0))], None),
        ([sample(20_000, 900, (5, 0)), sample(10_000, 400, (0, 7))], 50.0),
        (
            [sample(30_000, 900, (0, 0)), sample(20_000, 800, (5, 0)), sample(10_000, 400, (5, 0))],
            40.0,
        ),
    ],
)
def test_the_pace_is_that_of_times_when_something_waited(samples, expected):
    assert capacity._settled_per_second(samples) == expected


def test_the_rate_limit_is_named_where_it_is_lower_than_the_workers_pace():
    insider = DestinationStanding(
        Condition(DESTINATION), 60.0, 1.0, Totals().requests_of("insider"), 0
    )
    counts = Counts(requests=10, delivered=50, waiting=600)
    settings = Settings.empty(Path("/nowhere"))

    found = capacity._time(Standing(settings, 0, counts, destinations={"insider": insider}))

    assert found["limited_by"] == "rate limit"
    assert found["rate_limit_per_second"] == {"insider": 5.0}
    assert found["backlog_seconds"] == 120.0


def test_random_keys_that_only_look_like_ledgers_are_none():
    rng = random.Random(1)
    digest = rng.randbytes(keys.DIGEST_BYTES)

    assert capacity._LEDGER.fullmatch(PartitionKeys("a", 1).ledger(digest))
    for key in (
        b"{a:1}lease",
        b"{a:1}dead_letters",
        b"{a:1}dead_letter_times",
        b"{quarantine}:about",
    ):
        assert not capacity._LEDGER.fullmatch(key)


def test_it_looks_once(call):
    with pytest.raises(UsageWrong, match="--capacity looks once"):
        call(app, "status", "--capacity", "--watch")

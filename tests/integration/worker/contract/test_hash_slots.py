"""The watch over calls that a Cluster would refuse: it has to see what it is there for."""

from collections.abc import Callable
from typing import Any

import pytest

from segrelay.ops.embedded import EmbeddedRedis
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.scripts import ScriptCall, run_each, run_script
from tests.hash_slots import HashSlotWatch

ONE, OTHER = "{insider:0}counts", "{insider:1}counts"
SCRIPT = "return #KEYS"
Doing = Callable[[Redis], Any]


def refused(valkey: EmbeddedRedis, doing: Doing) -> int:
    watch = HashSlotWatch(valkey.url)
    with connect(valkey.url) as client:
        doing(client)
    watch.end()
    return len(watch.refused)


def in_one_transaction(*names: str) -> Doing:
    def doing(client: Redis) -> None:
        pipe = client.pipeline(transaction=True)
        for name in names:
            pipe.hincrby(name, "a\n\"'\\\xff", 1)
        pipe.execute()

    return doing


@pytest.mark.parametrize(
    ("doing", "is_noticed"),
    [
        (lambda client: run_script(client, SCRIPT, (ONE, OTHER), ()), True),
        (lambda client: client.eval(SCRIPT, 2, ONE, "{segrelay}:names"), True),
        (lambda client: client.mget(ONE, "{segrelay}:names"), True),
        (lambda client: client.unlink(ONE, b"{insider:1}l\x00\xff\n"), True),
        (in_one_transaction(ONE, OTHER), True),
        (lambda client: run_script(client, SCRIPT, (ONE, "{insider:0}streams"), (OTHER,)), False),
        (lambda client: run_each(client, SCRIPT, [ScriptCall((ONE,)), ScriptCall((OTHER,))],
                                 synced_once=True), False),
        (lambda client: client.mget(ONE, b'{insider:0}l\x00\xff\n"\\'), False),
        (in_one_transaction(ONE, "{insider:0}recorded"), False),
    ],
)  # fmt: skip
def test_only_keys_of_two_slots_in_one_call_are_noticed(
    valkey: EmbeddedRedis, doing: Doing, *, is_noticed: bool
):
    assert (refused(valkey, doing) > 0) is is_noticed

"""What the ledger costs a profile; `make bench SCENARIO=ledger-size` measures a million."""

import pytest

from segrelay.worker.contract.keys import PartitionKeys, digest_of
from tools.bench.costs import CASES, measure, packed
from tools.bench.rigs import redis_alone

PROFILES = 50_000


@pytest.mark.parametrize(
    ("name", "most_bytes"),
    [
        ("one audience entered", 110),
        ("two audiences entered", 110),
        ("three audiences entered", 140),
        ("one audience entered and left, three triggers", 140),
    ],
)
def test_a_ledger_is_small(name, most_bytes):
    assert measure(CASES[name], PROFILES).memory <= most_bytes


def test_a_second_audience_needs_no_more_memory_than_the_first():
    """In an embedded Redis, whose allocator gives memory in steps of 16 bytes."""
    key = PartitionKeys("insider", 12).ledger(digest_of("email:ada@example.com"))
    sizes = []

    with redis_alone() as on:
        for name in ("one audience entered", "two audiences entered"):
            on.client.set(key, packed(CASES[name]))
            sizes.append(on.client.memory_usage(key))

    assert sizes[1] == sizes[0]

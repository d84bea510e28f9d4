"""The form in which members are kept, which holds any of them."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrelay.producer.sync.store import Mark, SyncStore
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.settings.sections import RedisSettings
from tests.members import set_marks

PARTITION = PartitionKeys("insider", 0)
MANY = 3_000
NAMES = st.one_of(
    st.integers(0, 60).map(lambda n: f"email:p{n}@example.com"),
    st.sampled_from(
        ["email:", "id:7", "email:\0a", "\0email:a", "id:é\n", "id:" + "x" * 300, "id:" + "y" * 252]
    ),
)
MARKS = st.sampled_from([b"1 x", b"\x81\x05\x00\xff", b"0 1790000000123", b"\0", b"m" * 200, b""])


@pytest.fixture
def store(client):
    return SyncStore(client, "vip", RedisSettings(partitions=1))


def test_any_changes_of_members_are_read_as_they_were_made(store, client):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.dictionaries(NAMES, MARKS, max_size=40), max_size=6))
    def holds(changes):
        client.flushall()
        known = {}
        for change in changes:
            set_marks(client, PARTITION, "vip", change)
            known = {key: mark for key, mark in (known | change).items() if mark}
        asked = [*known, "email:nobody@example.com"]

        assert dict(store.members(PARTITION)) == known
        assert store.marks("insider", asked) == known
        assert store.count("insider") == len(known)

    holds()


@pytest.mark.usefixtures("store")
def test_a_member_takes_few_bytes(client):
    everybody = {f"email:person{n:07}@example.com": Mark(12, b"1a2b").dumps() for n in range(MANY)}
    set_marks(client, PARTITION, "vip", everybody)

    most = 75 if "valkey_version" in client.info("server") else 110
    assert client.memory_usage(PARTITION.members("vip"), samples=0) / MANY < most


def test_nobody_is_missed_who_moves_while_members_are_read(store, client):
    first = {f"email:p{n}@example.com": b"1 x" for n in range(MANY)}
    set_marks(client, PARTITION, "vip", first)
    reading, found = store.pages(PARTITION), Counter()

    for number, page in enumerate(reading):
        found.update(page.keys())
        if number < 3:
            more = {f"email:q{number}{n}@example.com": b"1 x" for n in range(2 * MANY)}
            set_marks(client, PARTITION, "vip", more)

    assert first.keys() <= found.keys()

"""Members are counted once, however often a reading yields them."""

import tracemalloc

from segrelay.producer.sync.comparing import DistinctCount


def test_what_comes_twice_counts_once():
    found = DistinctCount()
    found.add(f"email:p{number}@example.com" for number in range(3_000))
    found.add(f"email:p{number}@example.com" for number in range(1_000, 5_000))

    assert found.count() == 5_000


def test_a_partition_with_very_many_members_takes_little_memory():
    tracemalloc.start()
    found = DistinctCount()
    found.add(f"email:p{number}@example.com" for number in range(100_000))
    assert found.count() == 100_000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 100_000 * 12

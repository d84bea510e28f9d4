import tracemalloc

from segrelay.worker.destinations.api import compact_json

USER = {"identifiers": {"email": "ada@example.com"}, "attributes": {"plan": "premium"}}


def test_it_keeps_no_more_memory_than_it_needs() -> None:
    tracemalloc.start()
    try:
        kept = [compact_json(USER) for _ in range(1_000)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taken < 2 * sum(map(len, kept))

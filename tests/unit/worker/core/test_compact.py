import tracemalloc

import orjson

from segrelay.worker.destinations.api import compact_json

USER = {"identifiers": {"email": "ada@example.com"}, "attributes": {"plan": "premium"}}


def test_it_is_the_text_that_orjson_writes_with_sorted_keys() -> None:
    assert compact_json(USER) == orjson.dumps(USER, option=orjson.OPT_SORT_KEYS)


def test_it_keeps_no_more_memory_than_it_needs() -> None:
    tracemalloc.start()
    try:
        kept = [compact_json(USER) for _ in range(1_000)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taken < 2 * sum(map(len, kept))

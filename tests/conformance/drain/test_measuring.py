"""The measures that a drain leaves in the counts, in a world without a network."""

from segrelay.worker.contract.outcomes import (
    DELIVERY_BOUNDS,
    REQUEST_BOUNDS,
    Histogram,
    fields_of_times,
    label_of_status,
)
from tests.conformance.drain.world import event


def test_times_fall_into_the_bucket_whose_bound_they_do_not_exceed() -> None:
    counts = fields_of_times("asked", REQUEST_BOUNDS, [0.05, 0.051, 99.0, -1.0])

    histogram = Histogram.read(counts, "asked", REQUEST_BOUNDS)

    assert counts == {"asked|0": 2, "asked|1": 1, "asked|9": 1, "asked|ms": 99_101}
    document = histogram.document()
    assert document["count"] == 4
    assert document["buckets"]["0.05"] == 2
    assert document["buckets"]["20.0"] == 3
    assert document["buckets"]["+Inf"] == 4


def test_only_defined_statuses_have_a_label_of_their_own() -> None:
    assert [*map(label_of_status, (200, 429, 299))] == ["200", "429", "2xx"]


def test_a_drain_counts_its_requests_by_answer_and_its_deliveries_by_time(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(7)))

    world.drain()

    counts = world.store.counts
    assert counts["answered|200"] == counts["requests|enter"] == 1
    assert counts["carried|users"] == 7
    assert Histogram.read(counts, "asked", REQUEST_BOUNDS).document()["count"] == 1
    accepted = Histogram.read(counts, "took|live|accepted", DELIVERY_BOUNDS).document()
    occurred = Histogram.read(counts, "took|live|occurred", DELIVERY_BOUNDS).document()
    assert accepted["count"] == occurred["count"] == counts["delivered|enter"] == 7
    assert occurred["sum_seconds"] - accepted["sum_seconds"] == 7 * (100_000 - 1)


def test_an_event_that_a_comparison_made_up_has_occurred_at_no_known_time(make_world) -> None:
    world = make_world()
    world.put(event("ada", state=True))

    world.drain()

    names = {name for name in world.store.counts if name.startswith("took|")}
    assert names
    assert not any("occurred" in name for name in names)

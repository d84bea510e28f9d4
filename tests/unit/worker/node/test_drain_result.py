"""The line that Flower shows of a drain."""

from segrelay.worker.batch.state import Tally
from segrelay.worker.node.task import DrainResult


def test_a_drain_tells_what_came_of_it():
    result = DrainResult(Tally(delivered=1_812, skipped=3, requests=1))

    assert str(result) == "delivered 1,812, skipped 3, dead 0, 1 request"
    assert not result.is_bad


def test_drains_that_took_its_slot_over_are_counted_with_it():
    following = [(7, Tally(delivered=5, dead=1, requests=2)), (9, Tally(waited_seconds=1.5))]
    result = DrainResult(Tally(delivered=2, requests=1), following)

    assert str(result) == (
        "delivered 7, skipped 0, dead 1, 3 requests, waited 1.5 s; with partition 7, 9"
    )
    assert result.is_bad


def test_one_that_the_destination_ended_is_bad_and_one_that_waits_is_not():
    refused = DrainResult(Tally(ended="access_refused", failed=True))

    assert refused.is_bad
    assert str(refused).endswith("; access_refused")
    assert not DrainResult(Tally(ended="held by another worker")).is_bad

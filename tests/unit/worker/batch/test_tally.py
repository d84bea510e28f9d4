"""The line that Flower shows of drains."""

from segrelay.worker.batch.partition import Tally


def test_a_tally_tells_what_came_of_a_drain_and_of_those_that_took_its_permit_over():
    first = Tally(delivered=1_812, skipped=3, requests=1, ended="no_more")
    total = Tally.of([first, Tally(delivered=5, dead=1, requests=2), Tally(waited_seconds=0.06)])

    assert str(first) == "delivered 1,812, skipped 3, dead 0, 1 request; no_more"
    assert str(total) == "delivered 1,817, skipped 3, dead 1, 3 requests, waited 0.1 s; no_more"
    assert (first.is_bad, total.is_bad) == (False, True)
    assert Tally.of([Tally(), Tally(ended="access_refused", failed=True)]).is_bad

"""What delays deliveries, as far as it still holds."""

from segrelay.ops.state.waiting import Delays
from segrelay.worker.core.backoff import Backoff, Wait


def test_what_an_older_edition_of_a_trigger_has_caused_delays_no_more():
    delays = Delays(
        {"vip": Wait(edition="old"), "gold": Wait(edition="one"), "new": Wait()},
        {"live|vip|1-0": Backoff(1, edition="old"), "live|gold|1-0": Backoff(1, edition="one")},
    )

    left = delays.without_former({"vip": "new", "gold": "one", "new": "one"})

    assert left.waits.keys() == {"gold", "new"}
    assert left.backoffs.keys() == {"live|gold|1-0"}

"""Reading from Insider within its quota."""

import pytest

from segrelay.ops.insider.reader import InsiderReader
from tests.integration.ops.relay import payload


@pytest.fixture
def small_quota(sandbox):
    """Four readings a minute, for one test."""
    before = sandbox.settings()
    sandbox.settings(profile_units_per_minute=10, profile_read_cost=2.5)
    yield sandbox
    sandbox.settings(profile_units_per_minute=before["profile_units_per_minute"])


@pytest.mark.usefixtures("small_quota")
def test_a_reader_waits_for_the_next_minute_before_the_quota_is_used_up(relay):
    waits = []
    destination = relay.settings.destinations["insider"]
    relay.deliver(payload("ann@example.com", first_name="Ann"))
    who = {"identifiers": {"email": "ann@example.com"}}

    with InsiderReader(relay.settings, destination, sleep=waits.append) as reader:
        for _ in range(3):
            assert reader.profile(who, ["name"]) == {"name": "Ann"}
        assert not [wait for wait in waits if wait > 1]
        reader.profile(who, ["name"])

    assert waits[-1] > 60

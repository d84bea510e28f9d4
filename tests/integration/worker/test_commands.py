"""How many commands Redis runs for a delivery, however many triggers and partitions there are."""

import pytest

from tools.bench.costs import deliver

MOST_TIMES = 1.3


@pytest.fixture(scope="module")
def few() -> dict[str, float]:
    """Return the cost of 100 deliveries in each of 16 partitions, of two triggers."""
    return deliver(events=1_600, partitions=16)


def test_commands_of_draining_do_not_grow_with_triggers(few: dict[str, float]) -> None:
    many = deliver(events=1_600, partitions=16, triggers=40)

    assert many["commands_of_draining"] <= MOST_TIMES * few["commands_of_draining"]


def test_commands_of_publishing_do_not_grow_with_partitions(few: dict[str, float]) -> None:
    many = deliver(events=6_400, partitions=64)

    assert many["commands_of_publishing"] <= MOST_TIMES * few["commands_of_publishing"]
    assert many["commands_of_draining"] <= MOST_TIMES * few["commands_of_draining"]

"""How many commands Redis runs for a delivery, however many triggers and partitions there are."""

import pytest

from tools.bench.costs import deliver

MOST_TIMES = 1.3
EVENTS, PARTITIONS, TRIGGERS = 1_600, 16, 40
MOST_OF_A_STREAM = 2
"""Commands for each further stream, of which each request takes what it has sent with one command:
what a delivery costs beside them is little."""


@pytest.fixture(scope="module")
def few() -> dict[str, float]:
    """Return the cost of 100 deliveries in each of 16 partitions, of two triggers."""
    return deliver(events=EVENTS, partitions=PARTITIONS)


def test_commands_of_draining_grow_with_streams_only(few: dict[str, float]) -> None:
    many = deliver(events=EVENTS, partitions=PARTITIONS, triggers=TRIGGERS)

    more = EVENTS * (many["commands_of_draining"] - few["commands_of_draining"])
    assert more <= MOST_OF_A_STREAM * PARTITIONS * (TRIGGERS - 2)


def test_commands_of_publishing_do_not_grow_with_partitions(few: dict[str, float]) -> None:
    many = deliver(events=6_400, partitions=64)

    assert many["commands_of_publishing"] <= MOST_TIMES * few["commands_of_publishing"]
    assert many["commands_of_draining"] <= MOST_TIMES * few["commands_of_draining"]

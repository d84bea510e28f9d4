"""The shipped samples are as old as the look at them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from segrelay.worker.checks.preview import fresh_sample
from segrelay.worker.contract.words import Direction

NOW = datetime(2027, 2, 20, 12, tzinfo=UTC)
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+")


def times_of(direction: Direction) -> list[datetime]:
    found = TIME.findall(fresh_sample(direction, NOW))
    return [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in found]


@pytest.mark.parametrize("direction", list(Direction))
def test_no_time_of_a_fresh_sample_is_ahead_or_too_old_for_insider(direction: Direction) -> None:
    times = times_of(direction)

    assert times
    assert all(NOW - timedelta(days=30) < moment <= NOW for moment in times)


def test_the_sample_of_an_exit_is_newer_than_that_of_its_entrance() -> None:
    assert max(times_of(Direction.ENTER)) < min(times_of(Direction.EXIT))

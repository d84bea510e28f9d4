"""Times that tests allow grow with the load of the machine."""

import os

import pytest

from tests.waiting import patient, until


@pytest.mark.parametrize(
    ("load_a_processor", "expected"), [(0.0, 10.0), (3.0, 10.0), (9.0, 30.0), (900.0, 100.0)]
)
def test_a_time_grows_with_what_else_runs(load_a_processor, expected):
    assert patient(10.0, load_a_processor * (os.cpu_count() or 1)) == pytest.approx(expected)


def test_what_does_not_come_in_time_fails():
    with pytest.raises(AssertionError, match="waits for did not come in 0 s"):
        until(list, 0.0)

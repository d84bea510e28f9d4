"""What the ledger costs a profile; `make bench SCENARIO=ledger-size` measures a million."""

import pytest

from tools.bench.costs import CASES, measure

PROFILES = 50_000
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("name", "most_bytes"),
    [
        ("one audience entered", 110),
        ("three audiences entered", 140),
        ("one audience entered and left, three triggers", 140),
    ],
)
def test_a_ledger_is_small_and_ends_by_itself(name, most_bytes):
    size = measure(CASES[name], PROFILES)

    assert size.memory <= most_bytes
    assert 89 * DAY_MS < size.least_left_ms <= 90 * DAY_MS

"""What the ledger costs a profile; `make bench SCENARIO=ledger-size` measures a million."""

import pytest

from tools.bench.costs import CASES, measure

PROFILES = 50_000


@pytest.mark.parametrize(
    ("name", "most_bytes"),
    [
        ("one audience entered", 110),
        ("two audiences entered", 110),
        ("three audiences entered", 140),
        ("one audience entered and left, three triggers", 140),
    ],
)
def test_a_ledger_is_small(name, most_bytes):
    assert measure(CASES[name], PROFILES).memory <= most_bytes

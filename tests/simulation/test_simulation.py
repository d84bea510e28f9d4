"""The promises, whatever comes, whoever acts, and whatever breaks meanwhile.

`SEED=7 pytest tests/simulation` plays the history of one seed; at the same commit it is always the
same. One that fails is printed with the few acts that it takes.
"""

import os

import pytest

from tests.nightly import amount
from tests.simulation.history import history_of
from tests.simulation.search import explained, search

SEED = int(os.environ.get("SEED", "-1"))
HISTORIES = amount(60, nightly=100_000)


def test_no_history_breaks_a_promise(make_system) -> None:
    first, last = (0, HISTORIES) if SEED < 0 else (SEED, SEED + 1)

    seed, broken = search(first, last, make_system)

    if broken:
        pytest.fail(f"SEED={seed}: {explained(history_of(seed), broken, make_system)}")

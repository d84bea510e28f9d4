"""How much a test does: enough for its promise in `make test`, all of it in `make nightly`."""

import os
from typing import Final, TypeVar

T = TypeVar("T")

NIGHTLY: Final = os.environ.get("SEGRELAY_TESTS") == "nightly"


def amount(usual: T, nightly: T) -> T:
    """Return how many examples, kills or events a test takes in this run."""
    return nightly if NIGHTLY else usual

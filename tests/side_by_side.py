"""How tests are shared out among pytest's processes: what waits runs beside what computes.

A file is the unit, so that what its tests share is started once. Tests that wait for other
processes most of the time go one by one; they are mixed in among the others, the long ones early.
"""

from collections.abc import Iterable

import pytest
from xdist.scheduler import LoadScopeScheduling

ALONE = (
    "tests/journeys/",
    "tests/integration/celery/test_worker.py",
    "tests/integration/embedded/test_up.py",
    "tests/integration/producer/backfill/test_backfill.py",
)
"""Whose tests go one by one: a file of them would take a minute."""
BEGUN_BY = {"tests/journeys/": 0.6, "tests/integration/": 0.8}
"""After which share of everything else the last of them is begun."""


class SideBySide(LoadScopeScheduling):
    """Hands out files, or tests where a file takes long, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False
        super().schedule()


def unit_of(nodeid: str) -> str:
    """Return what is handed out as one: a file's path, or a test."""
    path = nodeid.partition("::")[0]
    return nodeid if path.startswith(ALONE) else path


def mixed(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return all tests in the order in which they are begun."""
    units: dict[str, dict[str, list[pytest.Item]]] = {}
    for item in items:
        kind = next((one for one in BEGUN_BY if item.nodeid.startswith(one)), "")
        units.setdefault(kind, {}).setdefault(unit_of(item.nodeid), []).append(item)
    placed = [
        (BEGUN_BY.get(kind, 1.0) * number / len(of_kind), number, unit)
        for kind, of_kind in units.items()
        for number, unit in enumerate(of_kind.values())
    ]
    return [item for _, _, unit in sorted(placed, key=lambda one: one[:2]) for item in unit]

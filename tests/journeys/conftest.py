"""Which journeys may run at the same time."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
CLOCKS = ("test_gate.py", "test_promises.py", "test_retries.py")
"""Their tests claim how long something takes: no two of them run at once."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each journey into a group; a group runs in one process, in order."""
    for item in items:
        if HERE in item.path.parents:
            name = "clock" if item.path.name in CLOCKS else "others"
            item.add_marker(pytest.mark.xdist_group(name))

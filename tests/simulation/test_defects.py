"""The simulator finds defects of the past that are planted again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.defects import DEFECTS, ROOT, copied_with

MOST_SECONDS = 600
HISTORIES = 1_000_000


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_can_still_be_planted(name: str) -> None:
    path, was, becomes = DEFECTS[name]

    assert (ROOT / path).read_text().count(was) == 1
    assert becomes != was


@pytest.mark.nightly
@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.simulation.search", "0", str(HISTORIES), "--as-found"],
        cwd=copied_with(DEFECTS[name], tmp_path),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )

    assert found.stdout.startswith("seed "), found.stderr[-2_000:]

"""The simulator finds defects of the past that are planted again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.defects import DEFECTS, ROOT, Defect, copied_with

MOST_SECONDS = 600
HISTORIES = 1_000_000
BROKEN_COPY = re.compile(r"seed \d+: (Name|Syntax|Import|Response)Error")
"""What a search says of a copy that can not run, rather than of its defect."""


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_can_still_be_planted(name: str) -> None:
    path, was, becomes = DEFECTS[name]

    assert (ROOT / path).read_text().count(was) == 1
    assert becomes != was


@pytest.mark.nightly
@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str, tmp_path: Path) -> None:
    found = searched(copied_with(DEFECTS[name], tmp_path), HISTORIES)

    assert found.stdout.startswith("seed "), found.stderr[-2_000:]
    assert not BROKEN_COPY.search(found.stdout), found.stdout


@pytest.mark.nightly
def test_nothing_is_found_in_a_copy_without_a_defect(tmp_path: Path) -> None:
    found = searched(copied_with(Defect("worker/app.py", "", ""), tmp_path), 100)

    assert (found.returncode, found.stdout) == (0, ""), found.stderr[-2_000:]


def searched(folder: Path, histories: int) -> "subprocess.CompletedProcess[str]":
    """Play histories with the package in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation.search", "0", str(histories), "--as-found"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )

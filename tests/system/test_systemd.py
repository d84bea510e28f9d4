"""The units for systemd, by systemd's own check."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "ops/systemd"
UNITS = sorted(FOLDER.glob("segrelay-*[!@].service"))
INSTALLED = "/opt/segrelay/bin/segrelay"


def verified(path: Path, text: str) -> str:
    """Return what systemd has to say of a unit."""
    tool = shutil.which("systemd-analyze")
    assert tool, "systemd-analyze is missing: make test-system installs it"
    path.write_text(text.replace(INSTALLED, str(Path(sys.executable).parent / "segrelay")))
    shutil.copy(FOLDER / "segrelay-failed@.service", path.parent)
    done = subprocess.run(
        [tool, "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode == 0 else f"{done.returncode}: {done.stderr}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    assert INSTALLED in text
    assert verified(tmp_path / unit.name, text) == ""
    assert "Restrat" in verified(tmp_path / unit.name, text.replace("Restart=", "Restrat="))
    weighed = ["systemd-analyze", "security", "--offline=true", "--threshold=12", str(unit)]
    assert subprocess.run(weighed, capture_output=True, check=False).returncode == 0


def test_every_process_of_segrelay_has_a_unit() -> None:
    names = ("console", "flower", "metrics", "receiver", "worker")
    assert [unit.stem for unit in UNITS] == [f"segrelay-{name}" for name in names]


def test_a_unit_that_fails_for_good_is_told(tmp_path: Path) -> None:
    text = (FOLDER / "segrelay-failed@.service").read_text()

    assert verified(tmp_path / "segrelay-failed@worker.service", text) == ""
    assert all("OnFailure=segrelay-failed@%n.service" in unit.read_text() for unit in UNITS)

"""In a folder that has packages with the names of ours, everything works and none of it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SEGRELAY = Path(sys.executable).with_name("segrelay")
MODULES = (
    "worker/__init__.py", "worker/app.py", "worker/adapters/__init__.py",
    "producer/__init__.py", "ops/__init__.py", "ops/embedded/__init__.py", "ops/main.py",
    "celeryconfig.py", "redis.py", "orjson.py", "celery/__init__.py", "rjsonnet.py", "_jsonnet.py",
)  # fmt: skip
WRITES = "import pathlib; pathlib.Path({trace!r}).open('a').write(__name__); raise SystemExit(9)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of somebody else, whose modules leave a trace when they are executed."""
    for module in MODULES:
        path = tmp_path / "theirs" / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(WRITES.format(trace=str(tmp_path / "executed")))
    return tmp_path / "theirs"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["demo", "--events", "50", "--people", "200"], id="sandbox, Redis and worker"),
        pytest.param(["template", "check", "insider/enter.jsonnet"], id="all engines"),
    ],
)
def test_packages_in_the_current_folder_are_never_executed(
    folder: Path, command: list[str]
) -> None:
    done = subprocess.run(
        [SEGRELAY, *command],
        cwd=folder,
        env={**os.environ, "SEGRELAY_CONFIG": str(configured(folder.parent))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert not (folder.parent / "executed").exists()
    assert done.returncode == 0, done.stderr[-2000:]


def configured(parent: Path) -> Path:
    path = parent / "segrelay.toml"
    if not path.exists():
        subprocess.run([SEGRELAY, "init", str(parent)], capture_output=True, check=True)
    return path


def test_a_worker_stays_in_the_foreground() -> None:
    """In the background Celery would start itself by names that the current folder may have."""
    done = subprocess.run(
        [SEGRELAY, "worker", "--detach"], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 2
    assert "stays in the foreground" in done.stderr

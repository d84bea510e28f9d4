"""segrelay installed beside packages and modules that have the names of its folders."""

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MINE = "raise SystemExit('somebody else\\'s worker.py was imported')\n"
SHORT = ("demo", "--events", "200", "--people", "300", "--json")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """An environment with the wheel, PyPI's `ops`, and a project with a `worker.py` of its own.

    The packages that segrelay depends on come from the environment of the tests; of segrelay only
    the wheel is there, because a path file of that environment is not read.
    """
    folder = tmp_path_factory.mktemp("beside")
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    [site] = (folder / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    project = folder / "project"
    project.mkdir()
    (project / "worker.py").write_text(MINE)

    def run(command: str, *arguments: str) -> str:
        done = subprocess.run(
            [folder / "venv/bin" / command, *arguments],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    pip = ("-m", "pip", "--disable-pip-version-check", "-q")
    run("python", *pip, "install", "--no-deps", "ops")
    before = {path.name for path in site.iterdir()}
    run("python", *pip, "install", "--no-deps", *map(str, folder.glob("*.whl")))
    added = {path.name for path in site.iterdir()} - before
    assert {name for name in added if not name.endswith(".dist-info")} == {"segrelay"}
    return run


def test_segrelay_works_beside_the_package_ops_and_after_that_is_uninstalled(
    installed: Callable[..., str],
) -> None:
    assert '"wrong_memberships": 0' in installed("segrelay", *SHORT)
    assert "site-packages/ops/" in installed(
        "python", "-c", "from importlib.util import find_spec; print(find_spec('ops'))"
    )

    installed("python", "-m", "pip", "--disable-pip-version-check", "uninstall", "-q", "-y", "ops")

    assert '"wrong_memberships": 0' in installed("segrelay", *SHORT)


def test_programs_publish_with_the_public_name(installed: Callable[..., str]) -> None:
    shown = installed("python", "-c", "from segrelay import open_publisher; print(open_publisher)")

    assert "open_publisher" in shown

"""The processors of a container, from what its kernel says."""

import os
from pathlib import Path

import pytest

from segrelay.worker.contract.own_processes import processors

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(root: Path, groups: str, **files: str) -> Path:
    """A folder with what /proc and /sys say; of a file's name, __ is / and - is a point."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/")
        file = file.with_name(file.name.replace("-", "."))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        pytest.param("", {}, HERE, id="no control groups"),
        pytest.param("0::/\n", {"cpu-max": "max 100000\n"}, HERE, id="no limit"),
        pytest.param("0::/\n", {"cpu-max": "50000 100000\n"}, 1, id="half a processor"),
        pytest.param("0::/\n", {"cpu-max": "100000 100000\n"}, 1, id="one"),
        pytest.param("0::/\n", {"cpu-max": "150000 100000\n"}, min(2, HERE), id="one and a half"),
        pytest.param("0::/\n", {"cpu-max": "6400000 100000\n"}, HERE, id="more than there are"),
        pytest.param("0::/a/b\n", {"a__cpu-max": "90000 100000\n"}, 1, id="of the group above"),
        pytest.param("0::/gone\n", {"cpu-max": "90000 100000\n"}, 1, id="a group of the host"),
        pytest.param("0::/\n", {"cpu-max": ""}, HERE, id="nothing that can be read"),
    ],
)
def test_a_container_has_the_processors_of_its_share(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert processors(machine(tmp_path, groups, **files)) == expected

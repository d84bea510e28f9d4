"""A failed test of real processes runs once more under `make test`, and no other test does."""

import re
import subprocess
import sys

import pytest

WITH_PROCESSES = ("journeys", "integration", "system")
WITHOUT = ("unit", "conformance", "house")
TEST = """
from pathlib import Path

RUNS = Path(__file__).with_suffix(".runs")

def test_the_first_run_fails():
    RUNS.write_text(RUNS.read_text() + "." if RUNS.exists() else ".")
    assert RUNS.read_text() != "."

def test_every_run_fails():
    assert not "a rule that is broken"

def test_another():
    pass
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of tests as ours is."""
    for name in WITH_PROCESSES + WITHOUT:
        (tmp_path / "tests" / name).mkdir(parents=True)
        (tmp_path / "tests" / name / "test_it.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def outcomes(folder, *options):
    """Run its tests; returns how many had which outcome, and what was written about them."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "--import-mode=importlib", *options, "tests"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    counted = re.findall(r"(\d+) (failed|passed|rerun)", done.stdout.splitlines()[-1])
    return {name: int(number) for number, name in counted}, done.stdout


def test_what_fails_once_is_run_again_and_named(folder):
    counts, output = outcomes(folder, "-p", "tests.second_run", "-n", "2", "--dist", "loadfile")

    of_each, others = len(WITH_PROCESSES), len(WITHOUT)
    failed, passed = of_each + 2 * others, 2 * of_each + others
    assert counts == {"failed": failed, "passed": passed, "rerun": 2 * of_each}, output
    named = output.partition("TESTS THAT NEEDED A SECOND RUN")[2].partition("Each is a defect")[0]
    assert all(
        f"tests/{name}/test_it.py::test_the_first_run_fails" in named for name in WITH_PROCESSES
    )
    assert not any(f"tests/{name}" in named for name in WITHOUT)
    assert "a rule that is broken" in named


def test_without_make_nothing_is_run_again(folder):
    counts, output = outcomes(folder)

    folders = len(WITH_PROCESSES + WITHOUT)
    assert counts == {"failed": 2 * folders, "passed": folders}, output
    assert "SECOND RUN" not in output

"""The wheel: what `pip install` puts on somebody's machine."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
STARTED = re.compile(r'own_module\(\s*"([\w.]+)"')


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Build the wheel; returns the texts of its modules and templates by their paths."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    with ZipFile(path) as wheel:
        return {name: wheel.read(name).decode() for name in wheel.namelist()}


def test_what_only_developers_run_is_not_installed(files):
    assert not any(name.startswith(("segrelay/tools", "tools", "tests")) for name in files)


def test_nothing_but_one_package_and_its_metadata_is_installed(files):
    top = {Path(name).parts[0] for name in files}

    assert {name for name in top if not name.endswith(".dist-info")} == {"segrelay"}


def test_commands_scripts_and_templates_are_installed(files):
    suffixes = {Path(name).suffix for name in files}

    assert {".py", ".lua", ".jsonnet", ".libsonnet"} <= suffixes
    assert {"segrelay/ops/demo/rig.py", "segrelay/sandbox/people.py"} <= files.keys()


def test_type_checkers_are_told_that_the_packages_are_typed(files):
    assert "segrelay/py.typed" in files


def test_all_that_installed_modules_import_or_start_of_ours_is_installed(files):
    modules = {name for name in files if name.endswith(".py")}

    missing = {
        (name, wanted)
        for name in modules
        for wanted in [*imported(files[name]), *STARTED.findall(files[name])]
        if wanted.partition(".")[0] == "segrelay"
        and not {f"{wanted.replace('.', '/')}{end}" for end in (".py", "/__init__.py")} & modules
    }

    assert len(modules) > 100
    assert missing == set()


def imported(text):
    """Yield the dotted names of the modules that a module imports, wherever it does so."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module

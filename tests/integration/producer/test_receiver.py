"""The receiver as a process, fed by a stand-in that follows Lytics' retry rules."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from segrelay.ops.run.up import own_command
from segrelay.worker.contract.redis.client import Redis
from tests.configuration import credentials, insider, settings_in, table, trigger
from tests.integration.producer.redis_contents import entries
from tests.ports import own_port
from tests.rig import SandboxProcess
from tests.waiting import until
from tests.warm import WarmProcess, run

SECRET = "a-secret-of-nobody"


class Relay:
    """A configuration with a receiver that can be started, killed and asked."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.port = own_port()
        self.url = f"http://127.0.0.1:{self.port}"
        receiver = table("producer.webhook", listen=f"127.0.0.1:{self.port}", secret=SECRET)
        tables = credentials(), insider(authorization="insider"), trigger("vip-enter"), receiver
        settings = settings_in(folder, *tables, redis=redis_url, partitions=4)
        self.environment = {**os.environ, "SEGRELAY_CONFIG": str(settings.source)}
        self.log = folder / "serve.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = WarmProcess(own_command("serve"), env=self.environment, stderr=log)
        until(self.is_alive)

    def is_alive(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").is_success
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(120)

    def post(self, body: bytes, **headers: str) -> httpx.Response:
        given = {"x-segrelay-secret": SECRET, **headers}
        return httpx.post(f"{self.url}/v1/lytics", content=body, headers=given, timeout=120)


@pytest.fixture
def relay(tmp_path: Path, redis_url: str) -> Iterator[Relay]:
    built = Relay(tmp_path, redis_url)
    yield built
    built.process.kill()
    built.process.wait()


@pytest.fixture
def lytics(relay: Relay) -> Iterator[SandboxProcess]:
    quick = {"webhook_retry_seconds": 0.1, "webhook_sleep_seconds": 0.3}
    with SandboxProcess(launch=WarmProcess, lytics=quick) as process:
        people = [{"_uid": f"u{n}", "email": f"p{n}@example.com"} for n in range(400)]
        process.post("lytics/profiles", people)
        job = {"webhook_url": f"{relay.url}/v1/lytics", "headers": {"x-segrelay-secret": SECRET}}
        process.post("lytics/jobs", job | {"batch_requests": True, "batch_size": 7})
        yield process


def enter(lytics: SandboxProcess, first: int, last: int) -> None:
    moves = [{"uid": f"u{n}", "audience": "vip", "change": "enter"} for n in range(first, last)]
    lytics.post("lytics/moves", moves)


def sent(lytics: SandboxProcess) -> int:
    return int(lytics.get("lytics/jobs")["job"]["sent"])


def test_an_orderly_end_resets_no_connection_and_loses_nothing(
    relay: Relay, lytics: SandboxProcess, client: Redis
) -> None:
    enter(lytics, 0, 200)

    assert relay.stop() == 0
    relay.start()
    enter(lytics, 200, 400)
    until(lambda: sent(lytics) == 400, 60)

    assert len(entries(client, partitions=4)) == 400


def test_a_check_says_that_it_receives_and_stores_nothing(relay: Relay, client: Redis) -> None:
    ran = run(own_command("serve", "--check", "--json"), env=relay.environment)

    assert ran.returncode == 0, ran.stderr
    assert b'"ok": true' in ran.stdout
    assert entries(client) == []


def test_a_silent_connection_does_not_stop_others(relay: Relay) -> None:
    idle = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(500)]
    slow = socket.create_connection(("127.0.0.1", relay.port))
    slow.send(b"POST /v1/lytics HTTP/1.1\r\nhost: relay\r\n")
    try:
        assert relay.post(b"{}").status_code == 200
    finally:
        for each in [*idle, slow]:
            each.close()


def test_a_taken_port_is_named(relay: Relay) -> None:
    ran = run(own_command("serve"), env=relay.environment)

    assert ran.returncode == 1
    assert str(relay.port).encode() in ran.stderr
    assert b"Traceback" not in ran.stderr


def test_a_line_of_the_log_leads_to_people_and_a_person_leads_to_the_line(relay: Relay) -> None:
    body = (
        b'{"data": {"email": "ann@example.com", "segment_events":'
        b' [{"slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}]}}'
    )
    name = relay.post(body).headers["x-request-id"]
    lines = [json.loads(line) for line in relay.log.read_text().splitlines()]
    assert [line["accepted"] for line in lines if line.get("request") == name] == [1]

    def asked(text: str) -> Any:
        answer = run(own_command("why", text, "--json"), env=relay.environment)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    request = until(lambda: asked(name))
    assert (request["status"], request["accepted"], len(request["people"])) == (200, 1, 1)
    known = asked("ann@example.com")
    assert known["profile"]["digest"] == request["people"][0]
    (moment,) = [one for one in known["timeline"] if one["what"] == "received"]
    assert name in moment["detail"]
    assert asked("req-0000000000000000") is None

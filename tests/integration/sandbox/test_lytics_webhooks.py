"""The stand-in for Lytics sends webhooks as Lytics does: the retry rules, over a real socket."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest

from tests.rig import SandboxProcess
from tests.waiting import until
from tests.warm import WarmProcess

PEOPLE = [{"_uid": f"u{n}", "email": f"p{n}@example.com", "segments": []} for n in range(20)]


class Receiver:
    """Answers with the statuses that it was given, then 200; keeps the bodies."""

    def __init__(self, url: str, statuses: list[int]) -> None:
        self.url = url
        self.statuses = statuses
        self.bodies: list[Any] = []


@contextmanager
def receiver(*statuses: int) -> Iterator[Receiver]:
    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found.bodies.append(orjson.loads(body))
            self.send_response(found.statuses.pop(0) if found.statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        found = Receiver(f"http://127.0.0.1:{server.server_port}/v1/lytics", list(statuses))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    quick = {"webhook_retry_seconds": 0.05, "webhook_sleep_seconds": 0.5}
    with SandboxProcess(launch=WarmProcess, lytics=quick) as process:
        process.post("lytics/profiles", PEOPLE)
        yield process


def all_enter(sandbox: SandboxProcess) -> None:
    moves = [{"uid": row["_uid"], "audience": "vip", "change": "enter"} for row in PEOPLE]
    assert sandbox.post("lytics/moves", moves) == {"moved": len(PEOPLE)}


def job(sandbox: SandboxProcess) -> Any:
    return sandbox.get("lytics/jobs")["job"]


def test_each_move_arrives_as_an_audience_trigger(sandbox: SandboxProcess) -> None:
    with receiver() as found:
        sandbox.post("lytics/jobs", {"webhook_url": found.url, "compressed": True})
        all_enter(sandbox)
        until(lambda: job(sandbox)["sent"] == len(PEOPLE))

    [entry] = found.bodies[0]["data"]["segment_events"]
    assert entry["event"] == "enter"
    assert entry["enter"].endswith("000Z")
    assert {body["data"]["email"] for body in found.bodies} == {row["email"] for row in PEOPLE}


def test_a_503_is_tried_again_and_a_413_is_omitted(sandbox: SandboxProcess) -> None:
    with receiver(503, 413) as found:
        sandbox.post("lytics/jobs", {"webhook_url": found.url, "worker_count": 1})
        all_enter(sandbox)
        until(lambda: job(sandbox)["sent"] == len(PEOPLE) - 1)

    assert job(sandbox)["omitted"] == 1
    assert len(found.bodies) == len(PEOPLE) + 1


def test_ten_failures_put_the_job_to_sleep(sandbox: SandboxProcess) -> None:
    with receiver(*[503] * 10) as found:
        sandbox.post("lytics/jobs", {"webhook_url": found.url, "worker_count": 1})
        all_enter(sandbox)
        until(lambda: job(sandbox)["state"] == "sleeping")
        until(lambda: job(sandbox)["sent"] == len(PEOPLE))

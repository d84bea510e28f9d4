"""The stand-in for Lytics sends webhooks as Lytics does: the retry rules, over a real socket."""

import gzip
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.journeys.endpoint import Endpoint
from tests.rig import SandboxProcess
from tests.waiting import allowed, until
from tests.warm import WarmProcess

PEOPLE = [{"_uid": f"u{n}", "email": f"p{n}@example.com", "segments": []} for n in range(20)]


def receiver(*statuses: int) -> Endpoint:
    """Return an endpoint that answers with these statuses, then 200."""
    left = list(statuses)
    return Endpoint(lambda _: (left.pop(0) if left else 200, {}))


def bodies(found: Endpoint) -> list[Any]:
    return [orjson.loads(gzip.decompress(came.raw)) for came, _ in found.came]


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    quick = {"webhook_retry_seconds": 0.05, "webhook_sleep_seconds": allowed(1)}
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
        sandbox.post("lytics/jobs", {"webhook_url": f"{found.url}/v1/lytics", "compressed": True})
        all_enter(sandbox)
        until(lambda: job(sandbox)["sent"] == len(PEOPLE))

    [entry] = bodies(found)[0]["data"]["segment_events"]
    assert entry["event"] == "enter"
    assert entry["enter"].endswith("000Z")
    assert {body["data"]["email"] for body in bodies(found)} == {row["email"] for row in PEOPLE}


def test_a_503_is_tried_again_and_a_413_is_omitted(sandbox: SandboxProcess) -> None:
    with receiver(503, 413) as found:
        sandbox.post("lytics/jobs", {"webhook_url": f"{found.url}/v1/lytics", "worker_count": 1})
        all_enter(sandbox)
        until(lambda: job(sandbox)["sent"] == len(PEOPLE) - 1)

    assert job(sandbox)["omitted"] == 1
    assert len(found.came) == len(PEOPLE) + 1


def test_ten_failures_put_the_job_to_sleep(sandbox: SandboxProcess) -> None:
    with receiver(*[503] * 10) as found:
        sandbox.post("lytics/jobs", {"webhook_url": f"{found.url}/v1/lytics", "worker_count": 1})
        all_enter(sandbox)
        until(lambda: job(sandbox)["state"] == "sleeping")
        until(lambda: job(sandbox)["sent"] == len(PEOPLE))

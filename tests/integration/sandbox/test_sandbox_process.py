"""The sandbox as its own process: HTTP as a client meets it, good and bad."""

from __future__ import annotations

import socket
import subprocess
import sys

import httpx
import pytest

from segrelay.sandbox.insider.rules import ATTRIBUTE_DELETE, UPSERT
from segrelay.worker.contract.own_processes import own_module
from tests.waiting import allowed, until
from tests.warm import run

HEADERS = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "t"}
PATIENCE_SECONDS = 60.0


@pytest.fixture
def client(sandbox):
    with httpx.Client(base_url=sandbox.url, headers=HEADERS, timeout=PATIENCE_SECONDS) as client:
        yield client


def person(email="ann@example.com", *slugs):
    attributes = {"custom": {"lytics_computed_attr": list(slugs or ("vip",))}}
    return {"identifiers": {"email": email}, "attributes": attributes}


def upsert(client, *users, path=UPSERT):
    return client.post(path, json={"users": list(users or (person(),))})


def test_what_was_written_can_be_looked_at(sandbox, client):
    upsert(client, person("ann@example.com", "vip", "gold"))
    partial = {"partial": {"lytics_computed_attr": ["vip"]}}
    removal = {"identifiers": {"email": "ann@example.com"}, "custom": partial}
    answer = upsert(client, removal, path=ATTRIBUTE_DELETE)

    assert answer.json() == {"data": {"successful": {"count": 1}, "fail": {}}}
    assert sandbox.get("memberships") == {"ann@example.com": ["gold"]}
    assert sandbox.get("memberships", attribute="status") == {"ann@example.com": []}
    profile = sandbox.get("profile", email="Ann@example.com")
    assert profile["attributes"] == {"custom": {"lytics_computed_attr": ["gold"]}}
    assert sandbox.get("profiles", email="ann@example.com") == profile
    assert sandbox.get("profiles") == [profile]
    assert sandbox.get("requests")["by_path"] == {UPSERT: 1, ATTRIBUTE_DELETE: 1}
    assert [each["status"] for each in sandbox.get("requests")["last"]] == [200, 200]
    for report in ("summary", "overlaps", "repeats", "health"):
        assert sandbox.get(report) is not None


def test_reset_forgets_what_was_written_and_keeps_the_switches(sandbox, client):
    sandbox.settings(limit_per_minute=7)
    upsert(client)

    sandbox.reset()

    assert sandbox.get("memberships") == {}
    assert sandbox.get("summary")["requests"]["total"] == 0
    assert sandbox.get("settings")["limit_per_minute"] == 7


def test_the_expected_token_is_not_shown(sandbox):
    shown = sandbox.settings(token="secret-token")

    assert "secret-token" not in str(shown)
    assert "secret-token" not in str(sandbox.get("settings"))


@pytest.mark.parametrize(
    ("switches", "applied"), [({"lost_answers": 1}, True), ({"lost_requests": 1}, False)]
)
def test_a_connection_is_closed_without_an_answer(sandbox, client, switches, applied):
    sandbox.settings(**switches)

    with pytest.raises(httpx.RemoteProtocolError):
        upsert(client)

    assert bool(sandbox.get("memberships")) is applied
    assert sandbox.get("requests")["last"][0]["status"] == 0


def test_a_late_request_takes_effect_after_its_connection_is_closed(sandbox, client):
    sandbox.settings(late_share=1, late_seconds=allowed(1))

    with pytest.raises(httpx.RemoteProtocolError):
        upsert(client)

    assert sandbox.get("memberships") == {}
    until(lambda: sandbox.get("memberships") == {"ann@example.com": ["vip"]})


def test_a_request_whose_client_left_takes_effect_and_counts_as_unanswered(sandbox, client):
    sandbox.settings(latency_seconds=0.4)
    with pytest.raises(httpx.ReadTimeout):
        client.post(UPSERT, json={"users": [person()]}, timeout=0.1)
    until(lambda: sandbox.get("memberships") and not in_flight(sandbox))

    sandbox.settings(latency_seconds=0)
    upsert(client)

    repeats = sandbox.get("repeats")
    assert repeats["bodies"][UPSERT]["again_after_unanswered"] == 1
    assert repeats["requests_with_a_user_again"][UPSERT]["again_after_unanswered"] == 1


def in_flight(sandbox):
    return sandbox.get("summary")["requests"]["in_flight"]


def test_a_port_in_use_is_said_and_ends_with_status_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        ended = run(own_module("segrelay.ops.main", "sandbox", "--port", port))

    assert ended.returncode == 1
    assert ended.stderr.decode().startswith(f"port {port} of 127.0.0.1 is in use")


def test_it_ends_with_whoever_started_it():
    starter = (
        "from tests.rig import SandboxProcess; import sys, time\n"
        "process = SandboxProcess()\n"
        "print(process.url, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE)
    url = parent.stdout.readline().decode().strip()
    assert httpx.get(f"{url}/_sandbox/health", timeout=60).is_success

    parent.kill()
    parent.communicate()

    until(lambda: not _answers(url))


def _answers(url):
    try:
        return httpx.get(f"{url}/_sandbox/health").is_success
    except httpx.TransportError:
        return False

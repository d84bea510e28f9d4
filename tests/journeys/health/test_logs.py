"""Everything that runs for long logs one JSON object a line, or text where that is asked for."""

import json

import httpx
import pytest

from segrelay.ops.embedded import free_port
from tests.journeys.judging import entrances
from tests.journeys.play import SHORT, Rig, stop_worker
from tests.journeys.receiver import answers
from tests.waiting import until

SAYS_CELERY = "worker: Warm shutdown (MainProcess)"
"""It writes this line from within a signal's handler, past all logging."""
MORE = """
[producer.webhook]
listen = "127.0.0.1:RECEIVER"
secret = "a-secret-of-nobody"
[flower]
listen = "127.0.0.1:FLOWER"
password = "a-password-of-nobody"
"""


def is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


@pytest.mark.parametrize(
    ("options", "is_expected"),
    [
        pytest.param((), True, id="no terminal"),
        pytest.param(("--log-format", "text"), False, marks=pytest.mark.nightly),
    ],
)
def test_worker_receiver_and_flower_log_in_the_chosen_form(
    tmp_path, monkeypatch, options, is_expected
):
    monkeypatch.setenv("FLOWER_AUTH", ".*")
    receiver, flower = free_port(), free_port()
    more = MORE.replace("RECEIVER", str(receiver)).replace("FLOWER", str(flower))
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        worker = rig.start_worker(*options)
        processes = [rig.start_beside(name, *options) for name in ("serve", "flower")]
        until(lambda: answers(f"http://127.0.0.1:{receiver}/healthz"), 60)
        until(lambda: answers(f"http://127.0.0.1:{flower}/healthcheck"), 60)
        secret = {"X-Segrelay-Secret": "a-secret-of-nobody"}
        httpx.post(f"http://127.0.0.1:{receiver}/v1/lytics", content=entrances(1), headers=secret)
        rig.wait_until_empty(60)
        stop_worker(worker)
        for process in processes:
            stop_worker(process)
        written = {
            name: (tmp_path / f"{name}.log").read_text().replace(SAYS_CELERY, "").splitlines()
            for name in ("worker-0", "serve", "flower")
        }

    for name, said in written.items():
        assert said, name
        assert not [line for line in said if line and is_json(line) != is_expected], name
    assert any("drain.ended" in line for line in written["worker-0"])
    assert any("webhook.answered" in line for line in written["serve"])
    assert any("FLOWER_AUTH is ignored" in line for line in written["flower"])

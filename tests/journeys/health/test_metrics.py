"""Metrics on the whole system: what Prometheus reads is what `status` says."""

import httpx
import orjson

from segrelay.ops.demo.rig import kill_group
from segrelay.ops.embedded.lifecycle import free_port
from tests.journeys.play import SHORT, Rig, invent, lines, send, start_worker, stop_worker
from tests.waiting import until
from tools.metrics_comparison import differences, parse_metrics, sum_metric

TOKEN = "a-token-of-nobody"
CONFIGURATION = """
[producer.webhook]
listen = "127.0.0.1:RECEIVER"
secret = "a-secret-of-nobody"
[metrics]
listen = "127.0.0.1:METRICS"
token = "a-token-of-nobody"
"""


def configured(tmp_path):
    ports = free_port(), free_port()
    text = CONFIGURATION.replace("RECEIVER", str(ports[0])).replace("METRICS", str(ports[1]))
    return Rig(tmp_path, delivery_lines=SHORT, more=text), ports


def page(port, token=TOKEN):
    """Return the metrics that somebody serves; None while nobody does."""
    headers = {"authorization": f"Bearer {token}"}
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers, timeout=120)
    except httpx.TransportError:
        return None
    return answer if token != TOKEN else parse_metrics(answer.raise_for_status().text)


def test_metrics_equal_the_status_after_a_run_with_failures(tmp_path):
    rig, ports = configured(tmp_path)
    _, sent = invent(events=600, people=150)
    with rig:
        rig.sandbox.settings(error_shares={"500": 0.5}, poison="person7", poison_status=200)
        rig.start_beside("serve")
        rig.start_beside("metrics")
        worker = start_worker(rig)
        send(rig, lines(sent) + b'{"no": "profile"}\n')
        until(lambda: {"delivered|enter", "answered|500"} <= rig.counts().keys(), 60)
        kill_group(worker)
        rig.workers.clear()
        rig.sandbox.settings(error_shares={})
        start_worker(rig)
        rig.wait_until_empty(120)
        stop_worker(rig.workers[0])

        status = orjson.loads(rig.command("status", "--json").stdout)
        assert all(status[kind] for kind in ("delivered", "skipped", "dead", "quarantined"))
        for port in ports:
            metrics = until(lambda port=port: page(port), 60)
            assert differences(metrics, status) == []
            assert sum_metric(metrics, "segrelay_requests_total", status="500") > 0
            assert sum_metric(metrics, "segrelay_up") == 1
            assert page(port, token="another").status_code == 401

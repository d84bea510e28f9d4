"""The page of metrics, read from a real Redis."""

import re
from contextlib import closing
from pathlib import Path

import orjson
import pytest
import yaml

from segrelay.ops.metrics.page import MetricsPage
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.errors import ConfigurationInvalid
from tests.integration.ops.relay import payload
from tests.metrics_comparison import differences, parse_metrics, sum_metric
from tests.waiting import until


def page_of(relay):
    return parse_metrics(MetricsPage(relay.client, relay.settings).text().decode())


def named(problems):
    return {(one["name"], one["severity"]) for one in problems}


KINDS = ("accepted", "delivered", "skipped", "dead", "discarded", "waiting")


def numbers(document):
    return tuple(document[kind] for kind in KINDS)


def test_every_delivery_is_in_exactly_one_count_of_the_status_and_the_metrics_equal_it(
    call, relay, sandbox
):
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(
        payload("ann@example.com", status="fine"),
        payload("ann@example.com", status="fine"),
        payload("ben@example.com", status="poisoned"),
        {"no": "profile"},
    )
    relay.publish(payload("cleo@example.com", direction="exit"))

    status = orjson.loads(call("status", "--json").stdout)
    metrics = page_of(relay)

    assert numbers(status) == (4, 1, 1, 1, 0, 1)
    assert status["skipped_by_reason"] == {"duplicate": 1}
    assert status["dead_by_reason"] == {"refused": 1}
    assert numbers(status["triggers"]["vip-enter"]) == (3, 1, 1, 1, 0, 0)
    assert numbers(status["triggers"]["vip-exit"]) == (1, 0, 0, 0, 0, 1)
    assert 0 <= status["oldest_waiting_seconds"] < 60
    assert (status["requests"] >= 1, status["in_doubt"]) == (True, 0)
    told = "accepted 4 = delivered 1 + skipped 1 + dead 1 + discarded 0 + waiting 1\n"
    assert told in call("status").stdout
    assert differences(metrics, status) == []
    assert sum_metric(metrics, "segrelay_up") == 1
    assert sum_metric(metrics, "segrelay_requests_total", status="200") == status["requests"]
    assert sum_metric(metrics, "segrelay_request_users_total") == 2
    assert sum_metric(metrics, "segrelay_letters_by_cause", reason="refused") == 1
    assert 0 < sum_metric(metrics, "segrelay_oldest_waiting_seconds", lane="live") < 60
    occurred = {"since": "occurred", "lane": "live"}
    count = "segrelay_delivery_seconds_count"
    assert sum_metric(metrics, count, since="accepted") == status["delivered"]
    assert sum_metric(metrics, "segrelay_delivery_seconds_bucket", le="1800.0", **occurred) == 0
    assert sum_metric(metrics, "segrelay_delivery_seconds_bucket", le="21600.0", **occurred) == 1
    assert sum_metric(metrics, "segrelay_gate_limit_per_minute") == 25_000

    def problems_are_equal():
        told = orjson.loads(call("status", "--json").stdout)["problems"]
        return named(map(dict, page_of(relay).get("segrelay_problems", ()))) == named(told)

    until(problems_are_equal)  # the time brings further ones


def test_deliveries_are_told_apart_by_lane(relay):
    relay.publish(payload("ann@example.com"), payload("ben@example.com"))
    relay.publish(payload("cleo@example.com"), lane="backfill")
    relay.deliver(payload("dora@example.com"), lane="job.may", job="may")
    relay.deliver(payload("dora@example.com"), lane="backfill")

    status = relay.status()
    metrics = page_of(relay)

    assert differences(metrics, status) == []
    by_lane = {"accepted": [2, 3], "delivered": [2, 2], "skipped": [0, 1]}
    for kind, counts in by_lane.items():
        name = f"segrelay_deliveries_{kind}_total"
        assert [sum_metric(metrics, name, lane=lane) for lane in ("live", "backfill")] == counts
    assert relay.status()["jobs"]["may"]["delivered"] == 1


def test_a_redis_that_is_not_there_is_a_number_and_a_problem(relay):
    with closing(connect("redis://127.0.0.1:1/0")) as nobody:
        metrics = parse_metrics(MetricsPage(nobody, relay.settings).text().decode())

    assert set(metrics) == {"segrelay_up", "segrelay_problems"}
    assert sum_metric(metrics, "segrelay_up") == 0
    assert sum_metric(metrics, "segrelay_problems", name="redis_unreachable", severity="ill") == 1


def test_a_label_has_a_bounded_number_of_values(relay):
    partition = PartitionKeys("insider", 0)
    fields = {f"dropped|vip-enter|field{n}": n + 1 for n in range(300)}
    causes = {f"cause{n}|n": n + 1 for n in range(300)}
    jobs = {f"job|job{n}|accepted": 1 for n in range(300)}
    relay.client.hset(partition.counts, mapping=fields | jobs)
    relay.client.hset(partition.causes, mapping=causes)

    metrics = page_of(relay)

    assert len(metrics["segrelay_dropped_fields_total"]) == 51
    assert sum_metric(metrics, "segrelay_dropped_fields_total") == sum(fields.values())
    assert len(metrics["segrelay_letters_by_cause"]) == 21
    assert sum_metric(metrics, "segrelay_letters_by_cause") == sum(causes.values())
    assert len(metrics.get("segrelay_job_deliveries", {})) <= 300


ROOT = Path(__file__).parents[4]
AUTOSCALING = ROOT / "ops/helm/segrelay/templates/autoscaling.yaml"
SHOWN = {
    "rules": yaml.safe_load((ROOT / "ops/prometheus/rules.yml").read_text()),
    "dashboard": orjson.loads((ROOT / "ops/grafana/segrelay.json").read_bytes()),
    "autoscaling": yaml.safe_load(re.sub(r"\{\{.*?\}\}", "", AUTOSCALING.read_text())),
}


def test_what_is_asked_of_prometheus_is_there_and_no_rate_of_a_count_that_a_replay_lowers(relay):
    """A counter that falls has begun anew to Prometheus: a rate would show all that is left."""
    text = MetricsPage(relay.client, relay.settings).text().decode()
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    there = {
        found + suffix
        for found, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
        for suffix in suffixes.get(kind, ("",))
    }
    panels = [one for one in SHOWN["dashboard"]["panels"] if one["type"] != "row"]

    for name, shown in SHOWN.items():
        asked = list(queries(shown))
        names = {name for query in asked for name in re.findall(r"segrelay_\w+", query)}
        assert names, name
        assert names - there == set()
        rates = [
            one for one in asked if re.search(r"(rate|increase)\(segrelay_deliveries_dead", one)
        ]
        assert not rates
    assert any("segrelay_deliveries_dead_total" in one for one in queries(SHOWN["dashboard"]))
    assert len({one["id"] for one in panels}) == len(panels)
    assert [one["title"] for one in panels if not all(t["expr"] for t in one["targets"])] == []


def queries(document):
    """Yield all queries in a document."""
    match document:
        case dict():
            for key, value in document.items():
                if key in {"expr", "query", "definition"} and isinstance(value, str):
                    yield value
                else:
                    yield from queries(value)
        case list():
            for one in document:
                yield from queries(one)


def test_the_dashboard_adds_up_each_series_once(relay, sandbox):
    """Receivers and `segrelay metrics` tell the same, and `max` keeps one of each series."""
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(payload("ann@example.com"), payload("ben@example.com", status="poisoned"))
    relay.publish(payload("ann@example.com"), lane="backfill")
    relay.client.hincrby(relay.partitions()[0].counts, "resent|vip-enter", 1)
    relay.drain()
    relay.publish(payload("cleo@example.com"))
    labels = {
        name: {label for found in series for label, _ in found}
        for name, series in page_of(relay).items()
    }
    summed = (
        r"sum(?: by \([^)]*\) )?\(max by \(([^)]*)\) \((?:rate\(|clamp_min\(deriv\()?(segrelay_\w+)"
    )

    found = [
        (set(kept.split(", ")), name)
        for query in queries(SHOWN["dashboard"])
        for kept, name in re.findall(summed, query)
        if name != "segrelay_problems"
    ]

    assert {name for _, name in found} >= {
        f"segrelay_deliveries_{kind}_total" for kind in ("accepted", "delivered", "skipped", "dead")
    }
    assert [(name, kept) for kept, name in found if kept != labels[name]] == []


def test_other_machines_get_no_metrics_without_a_token(call):
    with pytest.raises(ConfigurationInvalid, match=r"metrics\.token is not set"):
        call("metrics", "--listen", "0.0.0.0:0")

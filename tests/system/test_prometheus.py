"""The alerts, by promtool: each fires in its staged failure, and none in a healthy day."""

import re
import subprocess
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from segrelay.ops.metrics.page import rows_of_problems
from segrelay.ops.status.health import UNREACHABLE, problems_of
from segrelay.ops.status.problems import ILL, HealthProblem
from tests.unit.ops.status.test_judgement import CASES

FOLDER = Path(__file__).parents[2] / "ops/prometheus"
RULES = FOLDER / "rules.yml"
ALERTS = [
    rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
EVERY_SECONDS = 15
UP = {"series": "segrelay_up", "values": "1x6000"}
FIGURES: dict[str, list[dict[str, str]]] = {
    "SegrelayMetricsMissing": [],
    "SegrelayLiveDeliveriesSlow": [
        UP,
        *(
            {
                "series": "segrelay_delivery_seconds_bucket{destination='insider', lane='live',"
                f" since='accepted', le='{bound}'}}",
                "values": f"0+{step}x200",
            }
            for bound, step in (("30.0", 0), ("60.0", 8), ("300.0", 10), ("+Inf", 10))
        ),
    ],
    "SegrelayRateUsedUp": [
        UP,
        {"series": "segrelay_gate_used_ratio{destination='insider'}", "values": "0.97x200"},
    ],
}
"""The series of what is no problem of `segrelay status`, and where its alert has to fire."""


def series_of(found: list[HealthProblem]) -> list[dict[str, str]]:
    """Return the series that Prometheus reads while these problems last, from the fifth scrape."""
    return [
        {
            "series": "segrelay_problems{{name={name!r}, severity={severity!r}}}".format(**labels),
            "values": f"_x4 {count}x40 _x40",
        }
        for _, labels, count in rows_of_problems(found)
    ]


def staged() -> dict[str, list[HealthProblem]]:
    """Return for each problem the facts that make it one, and what is judged of them."""
    cases = sorted(
        ((name, problems_of(standing)) for standing, name, _ in CASES), key=lambda one: one[0]
    )
    found = {name: next(rows)[1] for name, rows in groupby(cases, key=lambda one: one[0])}
    return found | {UNREACHABLE: [HealthProblem(UNREACHABLE, ILL, "", "away", "look")]}


def name_of(alert: dict[str, Any]) -> str:
    found = re.search(r'name="(\w+)"', alert["expr"])
    return found[1] if found else ""


def fires(alert: dict[str, Any], at: str, labels: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "eval_time": at,
        "alertname": alert["alert"],
        "exp_alerts": [
            {"exp_labels": one, "exp_annotations": alert["annotations"]} for one in labels
        ],
    }


def promtool(folder: Path, *tests: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{EVERY_SECONDS}s",
        "tests": [{"interval": f"{EVERY_SECONDS}s", **test} for test in tests],
    }
    file = folder / "tests.yml"
    file.write_text(yaml.safe_dump(document))
    return subprocess.run(
        ["promtool", "test", "rules", str(file)],  # noqa: S607 - the package's
        capture_output=True,
        text=True,
        check=False,
    )


def test_promtool_finds_no_mistake_in_the_rules_and_in_the_configuration() -> None:
    for words in (("rules", RULES), ("config", "--syntax-only", FOLDER / "prometheus.yml")):
        done = subprocess.run(
            ["promtool", "check", *words],  # noqa: S607 - the package's
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout


def test_each_problem_fires_its_alert_in_its_staged_failure_and_no_longer(tmp_path: Path) -> None:
    found = staged()
    alerts = {name_of(alert): alert for alert in ALERTS if name_of(alert)}
    tests = []
    assert alerts.keys() == found.keys()
    for name, alert in alerts.items():
        severities = {one.severity for one in found[name] if one.name == name}
        labels = [{"name": name, "severity": one} for one in severities]
        tests.append(
            {
                "input_series": [UP, *series_of(found[name])],
                "alert_rule_test": [
                    fires(alert, "45s", []),
                    fires(alert, "1m", labels),
                    fires(alert, "20m", []),
                ],
            }
        )

    done = promtool(tmp_path, *tests)

    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_read_from_figures_fires_too(tmp_path: Path) -> None:
    alerts = {alert["alert"]: alert for alert in ALERTS if not name_of(alert)}
    assert alerts.keys() == FIGURES.keys()
    tests = []
    for name, series in FIGURES.items():
        about = {"severity": alerts[name]["labels"]["severity"]}
        labels = about if name == "SegrelayMetricsMissing" else about | {"destination": "insider"}
        tests.append(
            {"input_series": series, "alert_rule_test": [fires(alerts[name], "40m", [labels])]}
        )

    done = promtool(tmp_path, *tests)

    assert done.returncode == 0, done.stdout + done.stderr


def test_none_fires_in_a_healthy_day(tmp_path: Path) -> None:
    bucket = "segrelay_delivery_seconds_bucket{destination='insider', lane='live', since='accepted'"
    series = [
        UP,
        {"series": "segrelay_gate_used_ratio{destination='insider'}", "values": "0.4x6000"},
        {"series": f"{bucket}, le='1.0'}}", "values": "0+100x6000"},
        {"series": f"{bucket}, le='60.0'}}", "values": "0+101x6000"},
        {"series": f"{bucket}, le='+Inf'}}", "values": "0+102x6000"},
    ]
    hours = [fires(alert, f"{hour}h", []) for alert in ALERTS for hour in (1, 8, 16, 24)]

    done = promtool(tmp_path, {"input_series": series, "alert_rule_test": hours})

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_leads_to_its_runbook(alert: dict[str, Any]) -> None:
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    page = (Path(__file__).parents[2] / path).read_text()

    assert f'<a id="{anchor}"></a>' in page
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}


NOTHING_YET = {
    "From acceptance to delivery", "From the event to delivery", "Time of a request", "Done in",
    "Users a request", "Since the last event", "The rate", "Used share of the rate",
}  # fmt: skip
"""Panels of times and shares, which have no value while nothing happens."""


def panels(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in document.get("panels", []):
        yield panel
        yield from panels(panel)


def test_a_panel_that_is_at_zero_shows_zero(tmp_path: Path) -> None:
    dashboard = orjson.loads((FOLDER.parent / "grafana/segrelay.json").read_bytes())
    asked = [
        (panel["title"], target["expr"])
        for panel in panels(dashboard)
        for target in panel.get("targets", ())
        if panel["type"] in {"stat", "timeseries"} and "or on()" in target["expr"]
    ]
    counting = {
        panel["title"]
        for panel in panels(dashboard)
        if panel["type"] == "timeseries" and "Redis" not in panel["title"]
    }
    assert counting - NOTHING_YET - {title for title, _ in asked} == set()
    rows = []
    for _, expression in asked:
        query = expression.replace("$destination", ".*").replace("$__rate_interval", "1m")
        found = re.search(r'"(\w+)", "none"', query)
        labels = f'{{{found[1]}="none"}}' if found else "{}"
        rows.append(
            {"expr": query, "eval_time": "5m", "exp_samples": [{"labels": labels, "value": 0}]}
        )

    done = promtool(tmp_path, {"input_series": [UP], "promql_expr_test": rows})

    assert done.returncode == 0, done.stdout + done.stderr

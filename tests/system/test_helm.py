"""The Helm chart: valid by the schemas of Kubernetes, and a configuration that segrelay takes."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from segrelay.worker.checks.triggers import check_triggers
from segrelay.worker.contract.settings import load_settings

helm = pytest.importorskip("helm_python")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "ops/helm/segrelay"
OPTIONAL = ("monitoring", "autoscaling", "console", "flower")
KEYS = ("insider-token", "webhook-secret", "metrics-token")
KEYS_OF_PAGES = ("console-secret", "console-ops", "flower-password")
URL = "redis://:a-password@redis.example.com:6379/0"
LEAST: dict[str, Any] = {"secrets": {"redis-url": URL} | {key: f"of {key}" for key in KEYS}}
ALL_OF_IT: dict[str, Any] = {name: {"enabled": True} for name in OPTIONAL} | {
    "secrets": LEAST["secrets"] | {key: f"of {key}" for key in KEYS_OF_PAGES}
}
OPERATORS = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
MINE = {
    "image": {"repository": "images.example.com/relay", "tag": "0.2.0"},
    "configuration": '[redis]\nurl = "file:secrets/redis-url"\n# "a", {{ b }}\n',
    "templates": {"enter.jsonnet": None, "insider/vip.jsonnet": "{ a: '{{ b }}' }"},
    "existingSecret": "of-the-vault",
    "worker": {
        "replicas": 5,
        "resources": {"limits": {"memory": "4Gi"}},
        "secrets": ["redis-url", "crm"],
    },
    "receiver": {"ingress": {"host": "hooks.example.com"}},
    "exports": {"claim": "of-mine"},
    "metrics": {"enabled": False},
    "network": {"enabled": False},
}


def rendered(values: dict[str, Any]) -> dict[str, Any]:
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name="segrelay", namespace="relay")
    files = [text for name, text in texts.items() if name.endswith(".yaml")]
    found = [one for text in files for one in yaml.safe_load_all(text) if one]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found}


ALL = rendered(ALL_OF_IT)
DEPLOYMENTS = [one for one in ALL.values() if one["kind"] == "Deployment"]


def test_the_chart_is_well_formed() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert helm.lint(CHART)["errors"] == []
    assert {about["version"], about["appVersion"]} == {version("segrelay")}


@pytest.mark.parametrize("values", [LEAST, ALL_OF_IT, MINE], ids=["least", "all", "mine"])
def test_what_is_rendered_is_valid_by_the_schemas(values: dict[str, Any]) -> None:
    for one in rendered(values).values():
        if one["apiVersion"] not in OPERATORS:
            kubernetes_validate.validate(one, "1.33", strict=True)


def test_values_of_ones_own_take_the_place_of_the_examples() -> None:
    found = rendered(MINE)

    worker = found["Deployment segrelay-worker"]["spec"]
    pod = worker["template"]["spec"]
    [container] = pod["containers"]
    [files] = [one["projected"] for one in pod["volumes"] if one["name"] == "configuration"]
    templates, secret = files["sources"][1]["configMap"], files["sources"][2]["secret"]
    assert worker["replicas"] == 5
    assert container["image"] == "images.example.com/relay:0.2.0"
    assert container["resources"]["limits"]["memory"] == "4Gi"
    assert pod["volumes"][-1]["persistentVolumeClaim"] == {"claimName": "of-mine"}
    assert secret["name"] == "of-the-vault"
    assert [one["key"] for one in secret["items"]] == ["redis-url", "crm"]
    assert templates["items"] == [
        {"key": "insider.vip.jsonnet", "path": "templates/insider/vip.jsonnet"}
    ]
    assert found["ConfigMap segrelay-templates"]["data"] == {
        "insider.vip.jsonnet": "{ a: '{{ b }}' }"
    }
    assert found["ConfigMap segrelay"]["data"]["segrelay.toml"] == MINE["configuration"]
    assert found["Ingress segrelay-receiver"]["spec"]["rules"][0]["host"] == "hooks.example.com"
    assert not {name.partition(" ")[0] for name in found} & {"Secret", "NetworkPolicy"}
    assert "Deployment segrelay-metrics" not in found


def pod_of(deployment: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_a_pod_can_change_nothing_and_gain_no_rights(deployment: dict[str, Any]) -> None:
    pod = pod_of(deployment)
    [container] = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert "livenessProbe" in container
    mounts = {one["name"]: one.get("readOnly", False) for one in container["volumeMounts"]}
    assert mounts == {"configuration": True, "tmp": False, "exports": False}
    assert re.search(r":\d+\.\d+", container["image"])


def test_a_worker_has_more_time_to_stop_than_it_needs_and_a_budget() -> None:
    worker = ALL["Deployment segrelay-worker"]
    budget = ALL["PodDisruptionBudget segrelay-worker"]["spec"]

    assert pod_of(worker)["terminationGracePeriodSeconds"] > 15
    assert budget["selector"]["matchLabels"] == worker["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("name", ["receiver", "metrics", "console", "flower"])
def test_a_service_finds_its_pods_and_their_port(name: str) -> None:
    deployment, service = ALL[f"Deployment segrelay-{name}"], ALL[f"Service segrelay-{name}"]
    [container] = pod_of(deployment)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    assert container["args"][-1].endswith(f":{next(iter(ports.values()))}")


def test_prometheus_finds_the_metrics_with_their_token_and_has_our_rules() -> None:
    monitor = ALL["ServiceMonitor segrelay"]["spec"]
    service = ALL["Service segrelay-metrics"]
    [endpoint] = monitor["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    rules = yaml.safe_load((ROOT / "ops/prometheus/rules.yml").read_text())

    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert credentials["key"] in ALL["Secret segrelay"]["stringData"]
    assert ALL["PrometheusRule segrelay"]["spec"] == rules


def policies_for(labels: dict[str, str]) -> list[dict[str, Any]]:
    found = [one["spec"] for one in ALL.values() if one["kind"] == "NetworkPolicy"]
    return [one for one in found if one["podSelector"]["matchLabels"].items() <= labels.items()]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_a_pod_is_reached_only_where_it_listens_and_reaches_no_private_address(
    deployment: dict[str, Any],
) -> None:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    [container] = pod_of(deployment)["containers"]
    policies = policies_for(labels)
    let_in = [port["port"] for one in policies for rule in one["ingress"] for port in rule["ports"]]
    let_out = [rule for one in policies for rule in one.get("egress", ())]

    assert let_in == [port["name"] for port in container.get("ports", ())]
    assert all("from" in rule for one in policies for rule in one["ingress"])
    [https] = [rule for rule in let_out if {"port": 443, "protocol": "TCP"} in rule["ports"]]
    assert "10.0.0.0/8" in https["to"][0]["ipBlock"]["except"]
    assert all("to" in rule and "ports" in rule for rule in let_out)


def test_what_scales_the_workers_scales_those_that_are_there() -> None:
    scaled = ALL["ScaledObject segrelay-worker"]["spec"]

    assert f"Deployment {scaled['scaleTargetRef']['name']}" in ALL
    assert 0 < scaled["minReplicaCount"] < scaled["maxReplicaCount"]


NEEDED = {
    "worker": {"insider-token"},
    "receiver": {"webhook-secret"},
    "metrics": {"metrics-token"},
    "console": {"console-secret", "console-ops"},
    "flower": {"flower-password"},
}


def projected(pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file that a pod finds in its folder."""
    [source] = [one["projected"] for one in pod["volumes"] if one["name"] == "configuration"]
    for one in source["sources"]:
        kind, key = ("ConfigMap", "data") if "configMap" in one else ("Secret", "stringData")
        about = one.get("configMap") or one["secret"]
        texts = ALL[f"{kind} {about['name']}"][key]
        for item in about["items"]:
            yield item["path"], texts[item["key"]]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_segrelay_takes_the_configuration_that_a_pod_finds_with_its_own_secrets_alone(
    deployment: dict[str, Any], tmp_path: Path
) -> None:
    name = deployment["metadata"]["name"].removeprefix("segrelay-")
    for path, text in projected(pod_of(deployment)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)

    settings = load_settings(tmp_path / "segrelay.toml", environ={})

    assert settings.redis.url == URL
    unset = {line.split(" is not set")[0].split("/")[-1] for line in settings.warnings}
    assert {key for key in (*KEYS, *KEYS_OF_PAGES) if key not in unset} == NEEDED[name]
    findings = check_triggers(settings, datetime.now(UTC)) if name == "worker" else []
    assert [one.message for one in findings if one.severity == "error"] == []


@pytest.mark.parametrize(
    ("changed", "is_restarted"),
    [
        ({"configuration": "[redis]\n"}, True),
        ({"secrets": ALL_OF_IT["secrets"] | {"redis-url": "redis://b"}}, True),
        ({"templates": {"vip.jsonnet": "{}"}}, False),
    ],
)
def test_what_a_process_reads_only_at_its_start_restarts_its_pod(
    changed: dict[str, Any], is_restarted: bool
) -> None:
    other = rendered(ALL_OF_IT | changed)

    for deployment in DEPLOYMENTS:
        now = other[f"Deployment {deployment['metadata']['name']}"]
        both = [one["spec"]["template"]["metadata"]["annotations"] for one in (deployment, now)]
        assert (both[0] != both[1]) is is_restarted


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "set secrets.redis-url, or name a secret that has it as existingSecret"),
        (LEAST | {"flower": {"enabled": True}}, "set secrets.flower-password"),
        (LEAST | {"workers": 3}, "additional properties 'workers' not allowed"),
        (LEAST | {"network": {"redis": {"addresses": ["redis"]}}}, "does not match pattern"),
    ],
)
def test_values_that_can_not_work_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(says)):
        rendered(values)

"""Helm renders the chart: to the plain manifests, and to what other values say."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

helm = pytest.importorskip("helm_python")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "ops/helm/segrelay"
ALL_OF_IT = {"monitoring": {"enabled": True}, "autoscaling": {"enabled": True}}
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
    "metrics": {"enabled": False},
    "network": {"enabled": False},
}


def rendered(values: dict[str, Any]) -> dict[str, Any]:
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name="segrelay", namespace="relay")
    found = [one for text in texts.values() for one in yaml.safe_load_all(text) if one]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found}


def test_the_chart_renders_to_the_plain_manifests() -> None:
    plain = [
        one
        for path in (ROOT / "ops/kubernetes").glob("*.yaml")
        for one in yaml.safe_load_all(path.read_text())
    ]

    assert rendered(ALL_OF_IT) == {f"{one['kind']} {one['metadata']['name']}": one for one in plain}


def test_the_chart_is_well_formed() -> None:
    assert helm.lint(CHART)["errors"] == []


@pytest.mark.parametrize("values", [{}, ALL_OF_IT, MINE], ids=["none", "all", "mine"])
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

"""The Helm chart, made of the manifests in ops/kubernetes: each value takes the place of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import yaml

_ROOT: Final = Path(__file__).parents[1]
_MANIFESTS: Final = _ROOT / "ops/kubernetes"
_MADE: Final = "# `make docs` writes this file from ops/kubernetes: change it there.\n"
_IMAGE: Final = re.compile(r"image: (\S+):(\S+)")
_REPLICAS: Final = re.compile(r"(?m)^  replicas: (\d+)$")
_RESOURCES: Final = re.compile(r"(?m)^( +)resources:\n((?:\1  .*\n)+)")
_TEMPLATES: Final = "items: [{key: enter.jsonnet, path: templates/enter.jsonnet}]"
_TEMPLATE_ITEMS: Final = (
    "items: [{{ range $name, $text := .Values.templates }}"
    '{key: {{ $name | replace "/" "." }}, path: templates/{{ $name }}}, {{ end }}]'
)
_SECRETS: Final = re.compile(
    r"(?m)^( +)- secret:\n +name: segrelay\n +items:\n((?: +- \{key: .*\n)+)"
)
_SECRET_KEY: Final = re.compile(r"key: ([\w-]+)")
_KEPT_IN: Final = '{{ .Values.existingSecret | default "segrelay" }}'
_SWITCHES: Final = {"monitoring": False, "autoscaling": False, "network": True, "metrics": True}
"""The files that can be left out, and whether they are there by default."""
_WORDS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "receiver": (
        ("relay.example.com]", "{{ .Values.receiver.ingress.host }}]"),
        ("host: relay.example.com", "host: {{ .Values.receiver.ingress.host }}"),
        ("relay-example-com-tls", "{{ .Values.receiver.ingress.tlsSecret }}"),
        ("ingressClassName: nginx", "ingressClassName: {{ .Values.receiver.ingress.class }}"),
    ),
    "network": (
        ("name: ingress-nginx", "name: {{ .Values.network.ingressNamespace }}"),
        ("name: monitoring", "name: {{ .Values.network.monitoringNamespace }}"),
    ),
    "autoscaling": (
        ("minReplicaCount: 2", "minReplicaCount: {{ .Values.autoscaling.min }}"),
        ("maxReplicaCount: 8", "maxReplicaCount: {{ .Values.autoscaling.max }}"),
        ("http://prometheus:9090", "{{ .Values.autoscaling.prometheus }}"),
    ),
    "monitoring": (("credentials: {name: segrelay,", f"credentials: {{name: {_KEPT_IN},"),),
}
_CONFIGURATION: Final = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: segrelay
  labels: {app.kubernetes.io/name: segrelay}
data:
  segrelay.toml: {{ .Values.configuration | toJson }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: segrelay-templates
  labels: {app.kubernetes.io/name: segrelay}
data:
  {{- range $name, $text := .Values.templates }}
  {{ $name | replace "/" "." }}: {{ $text | toJson }}
  {{- end }}
{{- if not .Values.existingSecret }}
---
apiVersion: v1
kind: Secret
metadata:
  name: segrelay
  labels: {app.kubernetes.io/name: segrelay}
type: Opaque
stringData: {{ .Values.secrets | toJson }}
{{- end }}
"""
_ABOUT: Final = """\
# The values of the chart; `make docs` writes this file. Yours belong into a file of your own:
#   helm install segrelay ops/helm/segrelay -f mine.yaml
#
#   image             of your registry, see docs/deploying.md
#   configuration     segrelay.toml; it names secrets as file:secrets/KEY
#   templates         texts by their paths below templates/, e.g. insider/enter.jsonnet
#   secrets           texts by key; existingSecret names a secret with these keys instead
#   worker, receiver, metrics: resources as Kubernetes writes them; `secrets` are the keys that the
#                     process sees
#   monitoring, autoscaling: need the Prometheus operator, and KEDA
"""


def chart() -> Iterator[tuple[str, str]]:
    """Yield each file of the chart: its path below the chart's folder and its text."""
    manifests = {path.stem: path.read_text("utf-8") for path in sorted(_MANIFESTS.glob("*.yaml"))}
    ours = version("segrelay")
    about = {
        "apiVersion": "v2",
        "name": "segrelay",
        "description": "Carries audience entrances and exits from Lytics to Insider.",
        "version": ours,
        "appVersion": ours,
        "kubeVersion": ">=1.25.0-0",
    }
    yield "Chart.yaml", _MADE + yaml.safe_dump(about, sort_keys=False)
    yield "values.yaml", _ABOUT + _written(_values(manifests))
    for name, text in manifests.items():
        yield f"templates/{name}.yaml", _MADE + _template(name, text)


def _values(manifests: Mapping[str, str]) -> dict[str, Any]:
    configuration, templates, secret = yaml.safe_load_all(manifests["configuration"])
    repository, tag = _found(_IMAGE, manifests["worker"]).groups()
    processes = {name: _of_process(manifests[name]) for name in ("worker", "receiver", "metrics")}
    values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag},
        "configuration": configuration["data"]["segrelay.toml"],
        "templates": templates["data"],
        "existingSecret": "",
        "secrets": secret["stringData"],
        **processes,
        "monitoring": {},
        "autoscaling": {"min": 2, "max": 8, "prometheus": "http://prometheus:9090"},
        "network": {"ingressNamespace": "ingress-nginx", "monitoringNamespace": "monitoring"},
    }
    values["receiver"]["ingress"] = {
        "class": "nginx",
        "host": "relay.example.com",
        "tlsSecret": "relay-example-com-tls",
    }
    for name, is_on in _SWITCHES.items():
        values[name] = {"enabled": is_on, **values[name]}
    return values


def _of_process(text: str) -> dict[str, Any]:
    resources = _found(_RESOURCES, text)
    keys = _SECRET_KEY.findall(_found(_SECRETS, text)[2])
    return {
        "replicas": int(_found(_REPLICAS, text)[1]),
        "resources": yaml.safe_load(resources[2]),
        "secrets": keys,
    }


def _template(name: str, text: str) -> str:
    if name == "configuration":
        return _CONFIGURATION
    here = f".Values.{name}"
    made = text.replace("{{", "{{ `{{` }}") if name == "monitoring" else text
    made = _IMAGE.sub("image: {{ .Values.image.repository }}:{{ .Values.image.tag }}", made)
    made = _REPLICAS.sub(f"  replicas: {{{{ {here}.replicas }}}}", made)
    made = _RESOURCES.sub(rf"\1resources: {{{{ toJson {here}.resources }}}}\n", made)
    made = made.replace(_TEMPLATES, _TEMPLATE_ITEMS)
    made = _SECRETS.sub(
        rf"\1- secret:\n\1    name: {_KEPT_IN}\n\1    items: "
        rf"[{{{{ range {here}.secrets }}}}{{key: {{{{ . }}}}, path: secrets/{{{{ . }}}}}}, "
        r"{{ end }}]\n",
        made,
    )
    for old, new in _WORDS.get(name, ()):
        if old not in made:
            raise ValueError(f"ops/kubernetes/{name}.yaml has no {old!r}.")
        made = made.replace(old, new)
    return f"{{{{- if {here}.enabled }}}}\n{made}{{{{- end }}}}\n" if name in _SWITCHES else made


def _found(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.search(text)
    if not found:
        raise ValueError(f"A manifest has nothing like {pattern.pattern}.")
    return found


class _Texts(yaml.SafeDumper):  # type: ignore[misc] # the library has no types
    """Writes texts of several lines as blocks."""


def _text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Texts.add_representer(str, _text)


def _written(values: Mapping[str, Any]) -> str:
    return str(yaml.dump(values, Dumper=_Texts, sort_keys=False, width=1_000))

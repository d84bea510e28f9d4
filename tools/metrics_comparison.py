"""Compares the text of metrics with the document of `segrelay status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from segrelay.ops.status.totals import OUTCOMES

MetricSamples = Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]
ComparedPairs = dict[str, tuple[float, float]]
_KINDS: Final = (*OUTCOMES, "resent")


def parse_metrics(text: str) -> MetricSamples:
    """Return the numbers of a page of metrics, by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            known = found.setdefault(sample.name, {})
            known[labels] = sample.value
    return found


def sum_metric(samples: MetricSamples, metric: str, /, **labels: str) -> float:
    """Return the sum of a metric over all samples that have these labels."""
    wanted = set(labels.items())
    return sum(n for found, n in samples.get(metric, {}).items() if wanted <= set(found))


def differences(samples: MetricSamples, status: Mapping[str, Any]) -> list[str]:
    """Return the numbers in which the metrics differ from a status; none = they are equal."""
    pairs = {
        **_deliveries(samples, status),
        **_lanes(samples, status),
        **_sums(samples, status),
        **_destinations(samples, status),
        **_jobs(samples, status),
    }
    return [f"{what}: {a:g} in the metrics, {b:g}" for what, (a, b) in pairs.items() if a != b]


def _deliveries(samples: MetricSamples, status: Mapping[str, Any]) -> ComparedPairs:
    pairs: ComparedPairs = {}
    for kind in _KINDS:
        name = f"segrelay_deliveries_{kind}_total"
        pairs[kind] = (sum_metric(samples, name), status[kind])
        for trigger, one in status["triggers"].items():
            pairs[f"{kind} of {trigger}"] = (sum_metric(samples, name, trigger=trigger), one[kind])
        for reason, count in status.get(f"{kind}_by_reason", {}).items():
            pairs[f"{kind} {reason}"] = (sum_metric(samples, name, reason=reason), count)
    return pairs


def _lanes(samples: MetricSamples, status: Mapping[str, Any]) -> ComparedPairs:
    pairs: ComparedPairs = {}
    for trigger, one in status["triggers"].items():
        for lane, counts in one["by_lane"].items():
            here = {"trigger": trigger, "lane": lane}
            for kind in OUTCOMES:
                found = sum_metric(samples, f"segrelay_deliveries_{kind}_total", **here)
                pairs[f"{kind} of {trigger} in {lane}"] = (found, counts[kind])
    return pairs


def _sums(samples: MetricSamples, status: Mapping[str, Any]) -> ComparedPairs:
    wanted = {
        "deliveries_waiting": status["waiting"],
        "requests_total": status["requests"],
        "requests_unanswered_total": status["unanswered"],
        "quarantine_records": status["quarantined"],
        "deliveries_orphaned": status["orphaned"],
        "dropped_fields_total": sum(status["dropped_fields"].values()),
        "letters_by_cause": sum_metric(samples, "segrelay_letters"),
    }
    return {name: (sum_metric(samples, f"segrelay_{name}"), n) for name, n in wanted.items()}


def _destinations(samples: MetricSamples, status: Mapping[str, Any]) -> ComparedPairs:
    pairs: ComparedPairs = {}
    for name, one in status["destinations"].items():
        here = {"destination": name}
        asked = sum_metric(samples, "segrelay_request_seconds_count", **here)
        pairs[f"answers of {name}"] = (asked, sum(one["requests"]["by_status"].values()))
        state = sum_metric(samples, "segrelay_destination_state", state=one["state"], **here)
        pairs[f"state of {name}"] = (state, 1.0)
    return pairs


def _jobs(samples: MetricSamples, status: Mapping[str, Any]) -> ComparedPairs:
    pairs: ComparedPairs = {}
    for found, number in samples.get("segrelay_job_deliveries", {}).items():
        labels = dict(found)
        job, kind = labels["job"], labels["kind"]
        pairs[f"{kind} of the job {job}"] = (number, status["jobs"][job][kind])
    return pairs

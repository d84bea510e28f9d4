"""Compares the text of metrics with the document of `segrelay status`."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from segrelay.ops.state.partitions import OUTCOMES

MetricSamples = Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]
_KINDS: Final = (*OUTCOMES, "resent")


def parse_metrics(text: str) -> MetricSamples:
    """Return the numbers of a page of metrics, by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def sum_metric(samples: MetricSamples, metric: str, /, **labels: str) -> float:
    """Return the sum of a metric over all samples that have these labels."""
    wanted = set(labels.items())
    return sum(n for found, n in samples.get(metric, {}).items() if wanted <= set(found))


def differences(samples: MetricSamples, status: Mapping[str, Any]) -> list[str]:
    """Return the numbers in which the metrics differ from a status; none = they are equal."""
    return [
        f"{metric} of {labels}: {found:g} in the metrics, {number:g}"
        for metric, labels, number in _expected(samples, status)
        if (found := sum_metric(samples, f"segrelay_{metric}", **labels)) != number
    ]


def _expected(
    samples: MetricSamples, status: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, str], float]]:
    for kind in _KINDS:
        metric = f"deliveries_{kind}_total"
        yield metric, {}, status[kind]
        for reason, count in status.get(f"{kind}_by_reason", {}).items():
            yield metric, {"reason": reason}, count
        for trigger, one in status["triggers"].items():
            yield metric, {"trigger": trigger}, one[kind]
            for lane, counts in one["by_lane"].items() if kind in OUTCOMES else ():
                yield metric, {"trigger": trigger, "lane": lane}, counts[kind]
    yield "deliveries_waiting", {}, status["waiting"]
    yield "requests_total", {}, status["requests"]
    yield "requests_unanswered_total", {}, status["unanswered"]
    yield "quarantine_records", {}, status["quarantined"]
    yield "deliveries_orphaned", {}, status["orphaned"]
    yield "dropped_fields_total", {}, sum(status["dropped_fields"].values())
    yield "letters_by_cause", {}, sum_metric(samples, "segrelay_letters")
    for name, one in status["destinations"].items():
        asked = sum(one["requests"]["by_status"].values())
        yield "request_seconds_count", {"destination": name}, asked
        yield "destination_state", {"destination": name, "state": one["state"]}, 1
    for found in samples.get("segrelay_job_deliveries", {}):
        labels = dict(found)
        yield "job_deliveries", labels, status["jobs"][labels["job"]][labels["kind"]]

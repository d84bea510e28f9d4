"""Families of metrics, and the bounds of their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.samples import Sample

OTHER: Final = "other"
"""A label's value for everything beyond a bound."""

MetricRows = Iterable[tuple[Sequence[str], float]]


def gauge(name: str, meaning: str, labels: Sequence[str], rows: MetricRows) -> Metric:
    """Return a family of numbers that rise and fall."""
    return _with_rows(GaugeMetricFamily(name, meaning, labels=labels), name, labels, rows)


def counter(name: str, meaning: str, labels: Sequence[str], rows: MetricRows) -> Metric:
    """Return a family of numbers that only rise; the text adds `_total` to its name."""
    family = CounterMetricFamily(name, meaning, labels=labels)
    return _with_rows(family, f"{name}_total", labels, rows)


def _with_rows(family: Metric, name: str, labels: Sequence[str], rows: MetricRows) -> Metric:
    """Add samples as `add_metric` does, which takes longer than all else for hundreds of rows."""
    family.samples += [
        Sample(name, dict(zip(labels, values, strict=True)), number) for values, number in rows
    ]
    return family


def histogram(
    name: str,
    meaning: str,
    labels: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Mapping[str, Any]]],
) -> Metric:
    """Return a family of times by buckets, from documents of `Histogram`."""
    family = HistogramMetricFamily(name, meaning, labels=labels)
    for values, document in rows:
        buckets = list(document["buckets"].items())
        family.add_metric(values, buckets, document["sum_seconds"])
    return family


def bounded(counts: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    """Return the largest counts, and the sum of the others as one."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    rest = sum(count for _, count in ordered[most:])
    return ordered[:most] + ([(OTHER, rest)] if rest else [])

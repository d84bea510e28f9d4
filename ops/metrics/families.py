"""Families of metrics, and the bounds of their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily

OTHER: Final = "other"
"""A label's value for everything beyond a bound."""

MetricRows = Iterable[tuple[Sequence[str], float]]


class RowFamily(Metric):
    """A family with rows instead of samples: with 400 triggers a sample for each takes long.

    Args:
        suffix: Ends the name of each number; that of a counter does so with `_total`.
        rows: The values of the labels, and the number.
    """

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str],
        rows: MetricRows,
        *,
        kind: str,
        suffix: str = "",
    ) -> None:
        super().__init__(name, meaning, kind)
        self.sample = f"{name}{suffix}"
        self.labels = labels
        self.rows = list(rows)


def gauge(name: str, meaning: str, labels: Sequence[str], rows: MetricRows) -> RowFamily:
    """Return a family of numbers that rise and fall."""
    return RowFamily(name, meaning, labels, rows, kind="gauge")


def counter(name: str, meaning: str, labels: Sequence[str], rows: MetricRows) -> RowFamily:
    """Return a family of numbers that only rise; `_total` is added to its name."""
    return RowFamily(name, meaning, labels, rows, kind="counter", suffix="_total")


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

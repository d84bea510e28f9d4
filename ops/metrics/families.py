"""Families of metrics, the bounds of their labels, and the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from segrelay.worker.contract.counts import Histogram

OTHER: Final = "other"
"""The value of a label for the sum of everything beyond its bound."""

MetricRows = Iterable[tuple[Sequence[str], float]]


class RowFamily(Metric):
    """A family of metrics that keeps plain rows: sample objects are slow with 400 triggers.

    Args:
        suffix: Ends the name of each number; that of a counter does so with `_total`.
        rows: The values of the labels, and the number.
    """

    def __init__(
        self,
        name: str,
        scope: str,
        labels: Sequence[str],
        rows: MetricRows,
        *,
        kind: str,
        suffix: str = "",
    ) -> None:
        super().__init__(name, scope, kind)
        self.sample = f"{name}{suffix}"
        self.labels = labels
        self.rows = list(rows)


def gauge(name: str, scope: str, labels: Sequence[str], rows: MetricRows) -> RowFamily:
    """Return a family of numbers that rise and fall."""
    return RowFamily(name, scope, labels, rows, kind="gauge")


def number(name: str, scope: str, value: float) -> RowFamily:
    """Return a family of one number that rises and falls."""
    return gauge(name, scope, (), [((), value)])


def counter(name: str, scope: str, labels: Sequence[str], rows: MetricRows) -> RowFamily:
    """Return a family of numbers that only rise; `_total` is added to its name."""
    return RowFamily(name, scope, labels, rows, kind="counter", suffix="_total")


def histogram(
    name: str,
    scope: str,
    labels: Sequence[str],
    rows: Iterable[tuple[Sequence[str], Histogram]],
) -> Metric:
    """Return a family of times by buckets, from histograms."""
    family = HistogramMetricFamily(name, scope, labels=labels)
    for values, found in rows:
        family.add_metric(values, list(found.cumulative().items()), found.sum_seconds)
    return family


def bounded(counts: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    """Return the largest counts, and the sum of the others as `OTHER`."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    rest = sum(count for _, count in ordered[most:])
    return ordered[:most] + ([(OTHER, rest)] if rest else [])


_PAIRS_KEPT: Final = 4_096
"""Number of labels with values that are cached as text: one for each trigger, and a few more."""


def text_of(families: Iterable[Metric]) -> bytes:
    """Return the page: counters, gauges and histograms without timestamps."""
    lines: list[str] = []
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines.append(f"# HELP {name} {_of_help(family.documentation)}\n")
        lines.append(f"# TYPE {name} {family.type}\n")
        if isinstance(family, RowFamily):
            for values, number in family.rows:
                labels = zip(family.labels, values, strict=True)
                lines.append(_line(family.sample, labels, number))
        lines += (_line(one.name, one.labels.items(), one.value) for one in family.samples)
    return "".join(lines).encode()


def _line(name: str, labels: Iterable[tuple[str, str]], number: float) -> str:
    written = ",".join([_pair(*pair) for pair in sorted(labels)])
    shown = floatToGoString(number)  # type: ignore[no-untyped-call]
    return f"{name}{{{written}}} {shown}\n" if written else f"{name} {shown}\n"


@lru_cache(_PAIRS_KEPT)
def _pair(name: str, value: str) -> str:
    escaped = _of_help(value).replace('"', r"\"")
    return f'{name}="{escaped}"'


def _of_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")

"""The text of metrics is that of Prometheus' library."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from segrelay.ops.metrics.families import counter, gauge, histogram, text_of
from segrelay.worker.contract.counts import REQUEST_BOUNDS, Histogram

NUMBERS = [0, 1, 7.0, 0.1, 1e-9, 1_234_567, 123_456_789.5, 1e21, float("inf"), float("-inf")]
SCOPE = 'Any "number" \\ in\ntwo lines.'
KINDS = [(counter, CounterMetricFamily), (gauge, GaugeMetricFamily)]


class Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def of_the_library(*families: Metric) -> bytes:
    return generate_latest(Families(list(families)))


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_are_written_as_the_library_writes_them(ours, theirs, number):
    expected = theirs("segrelay_any", SCOPE, labels=())
    expected.add_metric((), number)

    found = text_of([ours("segrelay_any", SCOPE, (), [((), number)])])

    assert found == of_the_library(expected)


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
@given(rows=st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_labels_are_written_as_the_library_writes_them(ours, theirs, rows):
    labels = ("trigger", "destination")
    expected = theirs("segrelay_any", SCOPE, labels=labels)
    for row in rows:
        expected.add_metric(row, 1)

    found = text_of([ours("segrelay_any", SCOPE, labels, [(row, 1) for row in rows])])

    assert found == of_the_library(expected)


def test_times_by_buckets_are_written_as_the_library_writes_them():
    found = Histogram.read({"asked|0": 3, "asked|9": 1}, "asked", REQUEST_BOUNDS)
    family = histogram("segrelay_any_seconds", "Any.", ("of",), [(("insider",), found)])

    assert text_of([family]) == of_the_library(family)

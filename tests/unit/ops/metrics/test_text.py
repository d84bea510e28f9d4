"""The text of metrics is that of Prometheus' library."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector

from ops.metrics.families import counter, gauge, histogram
from ops.metrics.text import text_of
from worker.contract.measures import REQUEST_BOUNDS, Histogram

NUMBERS = [0, 1, 7.0, 0.1, 1e-9, 1_234_567, 123_456_789.5, 1e21, float("inf"), float("-inf")]


class Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def of_the_library(*families: Metric) -> bytes:
    return generate_latest(Families(list(families)))


@pytest.mark.parametrize("kind", [counter, gauge])
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_are_written_as_the_library_writes_them(kind, number):
    family = kind("segrelay_any", 'Any "number" \\ in\ntwo lines.', (), [((), number)])

    assert text_of([family]) == of_the_library(family)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_labels_are_written_as_the_library_writes_them(rows):
    family = counter("segrelay_any", "Any.", ("trigger", "destination"), [(r, 1) for r in rows])

    assert text_of([family, family]) == of_the_library(family, family)


def test_times_by_buckets_are_written_as_the_library_writes_them():
    document = Histogram.read({"asked|0": 3, "asked|9": 1}, "asked", REQUEST_BOUNDS).document()
    family = histogram("segrelay_any_seconds", "Any.", ("of",), [(("insider",), document)])

    assert text_of([family]) == of_the_library(family)

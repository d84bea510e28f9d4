"""Scenarios of benchmarks, and their runs: each measurement in a process of its own."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from segrelay.ops.terminal.console import log_to_stderr


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of a scenario's measurement: one row of its table.

    Args:
        label: The name of the row.
        figure: Path of the value in the measured document, e.g. `idle/p50_ms`.
        arguments: Arguments of the measurement in which this variant differs.
    """

    label: str
    figure: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def value_in(self, document: Any) -> float:
        """Return this variant's value from a measured document."""
        for step in self.figure.split("/"):
            document = document[step]
        return float(document)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A measurement, and its variants that are compared with the first of them.

    Args:
        title: The comparison in words; stands above the table.
        measure: A function that measures one variant and returns a document; runs in its own
            process.
        variants: The variants, measured one right after the other in each run.
        events: Default of `--events`: how many events, rows, people or requests `measure` is
            given; 0 if it takes no such number.
        takes_long: True if the scenario is only run where it is named.
    """

    title: str
    unit: str
    measure: Callable[..., Any]
    variants: tuple[Variant, ...]
    events: int = 0
    takes_long: bool = False

    def arguments_of(self, variant: Variant, events: int | None) -> dict[str, Any]:
        """Return the arguments of `measure`; `events` replaces the scenario's own number."""
        number = {"events": events or self.events} if self.events else {}
        return number | dict(variant.arguments)


@dataclass(slots=True)
class Runs:
    """Runs scenarios; a measurement that several scenarios share is made once in each run.

    Args:
        count: The number of runs of each scenario.
        events: The number of events in the place of the scenarios' own.
        say: A function that takes a line about what is going on.
    """

    count: int
    events: int | None
    say: Callable[[str], None]
    _documents: dict[tuple[int, str], Any] = field(default_factory=dict)

    def measured(self, scenario: Scenario) -> dict[str, Any]:
        """Measure a scenario, and return its values by variant with the measured documents."""
        values: dict[str, list[float]] = {variant.label: [] for variant in scenario.variants}
        documents: dict[str, list[Any]] = {}
        for number in range(self.count):
            for variant in scenario.variants:
                arguments = scenario.arguments_of(variant, self.events)
                told = ", ".join(f"{name}={value}" for name, value in sorted(arguments.items()))
                call = f"{scenario.measure.__name__}({told})"
                if (number, call) not in self._documents:
                    self.say(f"run {number + 1} of {self.count}: {call}")
                    self._documents[number, call] = measured_apart(scenario.measure, arguments)
                document = self._documents[number, call]
                values[variant.label].append(variant.value_in(document))
                if len(documents.setdefault(call, [])) == number:
                    documents[call].append(document)
        return {
            "title": scenario.title,
            "unit": scenario.unit,
            "variants": summed_up(values),
            "documents": documents,
        }


def measured_apart(measure: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Run a measurement in a new process, in which nothing of an earlier one is loaded or cached.

    Raises:
        SegrelayError: The measurement fails.
    """
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=log_to_stderr
    ) as process:
        return process.submit(measure, **arguments).result()


def summed_up(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | None]]:
    """Return the median and spread of each variant, and its ratio to the first.

    Args:
        values: The values of all runs, in their order, by the variant's label.
    """
    base = next(iter(values.values()))
    return {
        label: {
            "least": min(found),
            "median": statistics.median(found),
            "most": max(found),
            "ratio": _ratio(found, base),
        }
        for label, found in values.items()
    }


def _ratio(found: Sequence[float], base: Sequence[float]) -> float | None:
    """Return the median over all runs of the ratio to the first variant."""
    ratios = [value / first for value, first in zip(found, base, strict=True) if first]
    return round(statistics.median(ratios), 3) if ratios else None

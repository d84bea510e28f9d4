"""The description of a benchmark: what is measured, with which arguments, and what is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Variant:
    """One bar of a scenario.

    Args:
        label: Shown beside the bar.
        figure: Path of the value in the measured document, e.g. `idle/p50_ms`.
        arguments: Arguments of the measurement in which this variant differs.
    """

    label: str
    figure: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def value_in(self, document: Any) -> float:
        """Return this variant's value."""
        for step in self.figure.split("/"):
            document = document[step]
        return float(document)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A measurement, and its variants that are compared with the first of them.

    Args:
        title: Says what is compared; stands above the table and the plot.
        measure: Function that measures one variant and returns a document; runs in its own process.
        variants: Measured one right after the other in each run.
        events: Default of `--events`: how many events, rows, people or requests `measure` is
            given; 0 if it takes no such number.
        takes_long: The scenario is only run if it is named.
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

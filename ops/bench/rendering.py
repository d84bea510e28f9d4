"""Measures what rendering costs: µs per event, for the shipped templates and any other.

    python -m ops.bench.rendering [TEMPLATE FOLDER]…

The best of some rounds counts: the machine may be doing other things.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from worker.adapters.renderer import Rendered, Renderer, Row, Template
from worker.adapters.template_files import SHIPPED_FOLDER
from worker.checks.samples import sample_profile
from worker.contract.words import Direction

_EVENTS: Final = 1_000
_ROUNDS: Final = 3
_FAILS_EVERY: Final = 100


def profiles(fields: int, events: int, *, fails_every: int = 0) -> list[Row]:
    """Return rows of invented people.

    Args:
        fields: How many fields each profile has.
        events: How many rows.
        fails_every: Every so many-th row has no readable profile; 0 for none.
    """
    rows = [Row(orjson.dumps(_profile(fields, number))) for number in range(events)]
    if fails_every:
        rows[fails_every - 1 :: fails_every] = [Row(b'{"_id":')] * (events // fails_every)
    return rows


def _profile(fields: int, number: int) -> dict[str, Any]:
    profile = sample_profile(Direction.ENTER, datetime.now(UTC)) | {
        "email": f"person{number}@example.com",
        "_id": str(10**18 + number),
    }
    for extra in count():
        if len(profile) >= fields:
            return profile
        profile[f"field_{extra}"] = f"value {number % 97}"
    raise AssertionError


def microseconds(renderer: Renderer, template: Template, rows: Sequence[Row]) -> float:
    """Return the time of one event, in µs: the best of some rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        results = renderer.render(template, rows, {})
        best = min(best, time.perf_counter() - started)
        assert any(isinstance(result, Rendered) for result in results)
    return best / len(rows) * 1e6


def measure(folder: Path, name: str) -> tuple[float, float, float]:
    """Return µs per event for 30 fields, for 300 fields, and for 30 fields with 1 % failing."""
    renderer = Renderer(folder)
    template = renderer.load(name)
    small, large = profiles(30, _EVENTS), profiles(300, _EVENTS)
    failing = profiles(30, _EVENTS, fails_every=_FAILS_EVERY)
    return (
        microseconds(renderer, template, small),
        microseconds(renderer, template, large),
        microseconds(renderer, template, failing),
    )


def main(arguments: Sequence[str]) -> None:
    """Print a table for the shipped templates, and for the templates that are named."""
    table = Table("template", "30 fields", "300 fields", "1 % failing", title="µs per event")
    shipped = [(SHIPPED_FOLDER, f"insider/{name}.jsonnet") for name in ("enter", "exit")]
    named = [(Path(path).parent, Path(path).name) for path in arguments]
    for folder, name in [*shipped, *named]:
        table.add_row(name, *(f"{value:.0f}" for value in measure(folder, name)))
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Measures what rendering costs: µs per event, for the shipped templates and any other.

    python -m ops.bench.rendering [TEMPLATE]…

Processor time, and the best of some rounds: the machine may be doing other things.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from ops.terminal.console import print_json
from worker.adapters.jsonnet.accelerated import sources_of
from worker.adapters.jsonnet.compiled import Compiled, compiled
from worker.adapters.jsonnet.files import SHIPPED_FOLDER, TemplateFolder
from worker.adapters.jsonnet.renderer import Renderer
from worker.adapters.jsonnet.rendering import GROUP
from worker.checks.samples import sample_profile
from worker.contract.words import Direction
from worker.core.rendered import Engine, Rendered, Row, Template

_EVENTS: Final = 1_000
_ROUNDS: Final = 3
_FAILS_EVERY: Final = 100
_KINDS: Final = ("30", "300", "1 % failing")
"""Fields of the profiles; the last has 30, and so many of them can't be read."""
_WAYS: Final = 10
_ASSERTS: Final = 3
"""Of ten events."""
FAILING: Final = Path(__file__).parent / "failing.jsonnet"


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


def microseconds(
    renderer: Renderer, template: Template, rows: Sequence[Row], engine: Engine
) -> float:
    """Return the time of one event, in µs: the best of some rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.process_time()
        for first in range(0, len(rows), GROUP):
            results = renderer.render(template, rows[first : first + GROUP], engine)
        best = min(best, time.process_time() - started)
        assert any(isinstance(result, Rendered) for result in results)
    return best / len(rows) * 1e6


def measure(folder: Path, name: str, engine: Engine) -> tuple[float, ...]:
    """Return µs per event for 30 fields, for 300 fields, and for 30 fields with 1 % failing."""
    renderer = Renderer(folder)
    template = renderer.load(name)
    failing = profiles(30, _EVENTS, fails_every=_FAILS_EVERY)
    all_rows = (profiles(30, _EVENTS), profiles(300, _EVENTS), failing)
    return tuple(microseconds(renderer, template, rows, engine) for rows in all_rows)


def in_ten_ways(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, of which ten fail for `failing.jsonnet`, each in another way."""
    changed = list(rows)
    step = len(rows) // (_WAYS + 1)
    for way in range(1, _WAYS + 1):
        changed[way * step] = _with_way(rows[way * step], way)
    return changed


def with_asserts(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, of which 30 % are skipped by an assert of `failing.jsonnet`."""
    return [_with_way(row, _WAYS) if at % 10 < _ASSERTS else row for at, row in enumerate(rows)]


def _with_way(row: Row, way: int) -> Row:
    return Row(orjson.dumps({**orjson.loads(row.profile), "way": way}))


def measure_failing(engine: Engine) -> tuple[float, ...]:
    """Return µs per event: none fails, ten of a thousand do in ten ways, 30 % are asserted.

    The first event of each way that fails is looked up by another engine, once in a process: that
    is done before.
    """
    renderer = Renderer(FAILING.parent)
    template = renderer.load(FAILING.name)
    good = profiles(30, _EVENTS)
    for rows in (good, in_ten_ways(good), with_asserts(good)):
        for first in range(0, _EVENTS, GROUP):
            renderer.render(template, rows[first : first + GROUP], engine)
    return tuple(
        microseconds(renderer, template, rows, engine)
        for rows in (good, in_ten_ways(good), with_asserts(good))
    )


def bare(folder: Path, name: str) -> tuple[float, ...]:
    """Return µs per event from a profile to a body, without JSON on either side."""
    form = compiled(sources_of(TemplateFolder(folder).bundle(name)))
    assert isinstance(form, Compiled)
    best = [float("inf")] * 2
    for at, fields in enumerate((30, 300)):
        people = [orjson.loads(row.profile) for row in profiles(fields, _EVENTS)]
        for _ in range(_ROUNDS):
            started = time.process_time()
            for profile in people:
                form.render(profile, {})
            best[at] = min(best[at], (time.process_time() - started) / _EVENTS * 1e6)
    return tuple(best)


def main() -> None:
    """Measure the shipped templates, and those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("templates", nargs="*", type=Path, help="measured beside the shipped ones")
    shipped = [(SHIPPED_FOLDER, f"insider/{name}.jsonnet") for name in ("enter", "exit")]
    named = [(path.parent, path.name) for path in parser.parse_args().templates]
    report = {Path(name).stem: _ways(folder, name) for folder, name in [*shipped, *named]}
    columns = ("template", "way", *_KINDS)
    table = Table(*columns, title="µs an event, whole results; `bare` without JSON")
    for name, ways in report.items():
        for way, values in ways.items():
            table.add_row(name, way, *(f"{value:.1f}" for value in values.values()))
        table.add_section()
    Console(stderr=True).print(table)
    print_json(report)


def _ways(folder: Path, name: str) -> dict[str, dict[str, float]]:
    engine = measure(folder, name, "jsonnet")
    auto = measure(folder, name, "auto")
    found = {
        "rjsonnet": engine,
        "compiled": auto,
        "times as fast": tuple(slow / fast for slow, fast in zip(engine, auto, strict=True)),
        "bare": bare(folder, name),
    }
    return {
        way: {kind: round(value, 1) for kind, value in zip(_KINDS, values, strict=False)}
        for way, values in found.items()
    }


if __name__ == "__main__":
    main()

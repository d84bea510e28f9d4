"""Benchmarks of rendering: the processor time of an event, which is the best of some rounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.jsonnet.compiled import Compiled, compile_template
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Engine, Rendered, Row, Template
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.adapters.jsonnet import GROUP
from segrelay.worker.checks.samples import sample_profile
from segrelay.worker.contract.words import Direction

_ROUNDS: Final = 3
_FAILS_EVERY: Final = 100
_WAYS: Final = 10
"""Number of ways in which an event of `failing.jsonnet` fails; the last is an assert."""
_ASSERTS: Final = 3
"""Number of events of ten that the assert in `failing.jsonnet` skips."""
_ROOT: Final = Path(__file__).parents[2]
_FAILING: Final = Path(__file__).parent / "failing.jsonnet"


def render(events: int, template: str, folder: str = "templates") -> dict[str, dict[str, float]]:
    """Measure rendering from JSON to JSON in groups of 50, and compiled rendering without JSON.

    Returns:
        µs an event, by the way of rendering and the kind of profiles.
    """
    path = _ROOT / folder
    rows = {
        "30": _profiles(30, events),
        "300": _profiles(300, events),
        "1 % failing": _profiles(30, events, fails_every=_FAILS_EVERY),
    }
    renderer = Renderer(path, LYTEMPLATES)
    loaded = renderer.load(template)
    form = compile_template(TemplateFolder(path, LYTEMPLATES).bundle(template))
    assert isinstance(form, Compiled)
    return {
        "rjsonnet": {
            kind: _microseconds(renderer, loaded, each, "jsonnet") for kind, each in rows.items()
        },
        "compiled": {
            kind: _microseconds(renderer, loaded, each, "auto") for kind, each in rows.items()
        },
        "bare": {kind: _bare(form, rows[kind]) for kind in ("30", "300")},
    }


def render_failing(events: int, engine: Engine) -> dict[str, float]:
    """Measure rendering when no event fails, ten fail in ten ways, and an assert skips 30 %.

    The first event of each way that fails is looked up by another engine, once in a process: that
    is done before.
    """
    renderer = Renderer(_FAILING.parent, LYTEMPLATES)
    template = renderer.load(_FAILING.name)
    good = _profiles(30, events)
    kinds = {
        "none": good,
        "ten in ten ways": _in_ten_ways(good),
        "30 % asserted": [
            _with_way(row, _WAYS) if at % 10 < _ASSERTS else row for at, row in enumerate(good)
        ],
    }
    for rows in kinds.values():
        for first in range(0, events, GROUP):
            renderer.render(template, rows[first : first + GROUP], engine)
    return {kind: _microseconds(renderer, template, rows, engine) for kind, rows in kinds.items()}


def _profiles(fields: int, events: int, *, fails_every: int = 0) -> list[Row]:
    """Return rows of invented people; of each `fails_every` rows, one profile can't be read."""
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


def _microseconds(
    renderer: Renderer, template: Template, rows: Sequence[Row], engine: Engine
) -> float:
    """Return the processor time of one event in µs: the best of some rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.process_time()
        for first in range(0, len(rows), GROUP):
            results = renderer.render(template, rows[first : first + GROUP], engine)
        best = min(best, time.process_time() - started)
        assert any(isinstance(result, Rendered) for result in results)
    return round(best / len(rows) * 1e6, 1)


def _bare(form: Compiled, rows: Sequence[Row]) -> float:
    """Return the µs for rendering a decoded profile to a body that is not encoded."""
    people = [orjson.loads(row.profile) for row in rows]
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.process_time()
        for profile in people:
            form.render(profile, {})
        best = min(best, time.process_time() - started)
    return round(best / len(rows) * 1e6, 1)


def _in_ten_ways(rows: Sequence[Row]) -> list[Row]:
    """Change ten of the rows so that each fails in `failing.jsonnet` in a different way."""
    changed = list(rows)
    step = len(rows) // (_WAYS + 1)
    for way in range(1, _WAYS + 1):
        changed[way * step] = _with_way(rows[way * step], way)
    return changed


def _with_way(row: Row, way: int) -> Row:
    return Row(orjson.dumps({**orjson.loads(row.profile), "way": way}))

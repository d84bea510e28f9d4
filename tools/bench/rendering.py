"""Benchmarks of rendering: the processor time of an event, which is the best of some rounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.jsonnet.rendered import Engine, Rendered, Row, Template
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.batch.render import RENDER_GROUP
from segrelay.worker.checks.preview import sample_profile
from segrelay.worker.contract.words import Direction

_ROUNDS: Final = 3
_FOLDER: Final = Path(__file__).parents[2] / "templates"


def render(events: int, template: str) -> dict[str, dict[str, float]]:
    """Measure rendering from JSON to JSON, in groups as a drain renders them.

    Returns:
        µs an event, by the way of rendering and the number of fields of a profile.
    """
    renderer = Renderer(_FOLDER, LYTEMPLATES)
    loaded = renderer.load(template)
    rows = {
        fields: [Row(orjson.dumps(_profile(fields, number))) for number in range(events)]
        for fields in (30, 300)
    }
    ways: dict[str, Engine] = {"rjsonnet": "jsonnet", "compiled": "auto"}
    return {
        way: {
            str(fields): _microseconds(renderer, loaded, each, engine)
            for fields, each in rows.items()
        }
        for way, engine in ways.items()
    }


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
        for first in range(0, len(rows), RENDER_GROUP):
            results = renderer.render(template, rows[first : first + RENDER_GROUP], engine)
        best = min(best, time.process_time() - started)
        assert any(isinstance(result, Rendered) for result in results)
    return round(best / len(rows) * 1e6, 1)

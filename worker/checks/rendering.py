"""Renders samples in a throw-away process: a template that nobody has tried may kill it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from worker.jsonnet.files import Bundle
from worker.jsonnet.isolated import DiedAt, render_isolated
from worker.jsonnet.rendered import Killed, Result, Row, Template
from worker.jsonnet.renderer import Renderer

RENDER_SECONDS: Final = 20.0
_RENDER_MEMORY_BYTES: Final = 1 << 30
_ROWS_A_PROCESS: Final = 100
"""The number of rows that one process renders; its seconds are enough for them."""


def render_apart(bundle: Bundle, rows: Sequence[Row]) -> list[Result | Killed]:
    """Render events in processes of their own; one result each.

    After a process died, the row at which it did is the first of the next one: it is to blame if
    that one dies before any row came out.

    Raises:
        TemplateBroken: The engine does not parse the template.
    """
    results: list[Result | Killed] = []
    while len(results) < len(rows):
        part = rows[len(results) : len(results) + _ROWS_A_PROCESS]
        outcome = render_isolated(
            bundle, part, seconds=RENDER_SECONDS, memory_bytes=_RENDER_MEMORY_BYTES
        )
        if isinstance(outcome, DiedAt):
            results += outcome.results or [Killed(outcome.cause)]
        else:
            results += outcome
    return results


class SampleRenderer(Protocol):
    """Renders rows: a `Renderer`, or one that does it in a process of its own."""

    def load(self, name: str) -> Template:
        """Read a template, or raise TemplateBroken."""

    def render(self, template: Template, rows: Sequence[Row]) -> Sequence[Result | Killed]:
        """Render events; one result each."""


class IsolatedSampleRenderer:
    """Renders in a process of its own."""

    def __init__(self, templates_folder: Path) -> None:
        self._renderer = Renderer(templates_folder, compiles=False)

    def load(self, name: str) -> Template:
        """Read a template, or raise TemplateBroken."""
        return self._renderer.load(name)

    def render(self, template: Template, rows: Sequence[Row]) -> Sequence[Result | Killed]:
        """Render events; one result each."""
        return render_apart(self._renderer.bundle_of(template), rows)

"""Renders samples in a throw-away process: a template that nobody has tried may kill it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from worker.jsonnet.isolated import DiedAt, render_isolated
from worker.jsonnet.rendered import Result, Row, Template
from worker.jsonnet.renderer import Renderer

RENDER_SECONDS: Final = 20.0
RENDER_MEMORY_BYTES: Final = 1 << 30


class RendersSamples(Protocol):
    """What a `Renderer` can do; also one that renders in a process of its own."""

    def load(self, name: str) -> Template:
        """Read a template, or raise TemplateBroken."""
        ...

    def render(self, template: Template, rows: Sequence[Row]) -> Sequence[Result] | DiedAt:
        """Render events; one result each."""
        ...


class IsolatedSamples:
    """Renders in a process of its own."""

    def __init__(self, templates_folder: Path) -> None:
        self._renderer = Renderer(templates_folder, compiles=False)

    def load(self, name: str) -> Template:
        """Read a template, or raise TemplateBroken."""
        return self._renderer.load(name)

    def render(self, template: Template, rows: Sequence[Row]) -> Sequence[Result] | DiedAt:
        """Render events; one result each."""
        return render_isolated(
            self._renderer.bundle_of(template),
            rows,
            seconds=RENDER_SECONDS,
            memory_bytes=RENDER_MEMORY_BYTES,
        )

"""`ProcessRenders`: renders here, or in a throw-away process what may have killed another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.adapters.isolated_renderer import Killed as DiedAt
from worker.adapters.isolated_renderer import render_isolated
from worker.adapters.renderer import Renderer, Result, Row
from worker.preparing import Killed
from worker.routes import Route

ISOLATED_SECONDS: Final = 20.0
"""For a group of at most 100 events, of which one takes half a millisecond."""
ISOLATED_BYTES: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ProcessRenders:
    """Renders for a drain; see `worker.preparing.Renders`."""

    renderer: Renderer
    templates_folder: Path

    async def render(
        self, route: Route, rows: Sequence[Row], *, isolated: bool
    ) -> list[Result | Killed]:
        """Render rows of one route, in order."""
        if isolated:
            return await asyncio.to_thread(self._isolated, route, list(rows))
        assert route.template is not None
        results: list[Result | Killed] = list(
            self.renderer.render(route.template, rows, route.settings)
        )
        await asyncio.sleep(0)
        return results

    def _isolated(self, route: Route, rows: list[Row]) -> list[Result | Killed]:
        """Halve until the one that kills the process is alone."""
        assert route.template is not None
        results = render_isolated(
            self.templates_folder,
            route.template.name,
            rows,
            route.settings,
            seconds=ISOLATED_SECONDS,
            memory_bytes=ISOLATED_BYTES,
        )
        if not isinstance(results, DiedAt):
            return list(results)
        if len(rows) == 1:
            return [Killed()]
        middle = len(rows) // 2
        return self._isolated(route, rows[:middle]) + self._isolated(route, rows[middle:])

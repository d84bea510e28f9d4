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

ISOLATED_SECONDS: Final = 5.0
"""For a group of at most 100 events, of which one takes half a millisecond."""
ISOLATED_BYTES: Final = 1_000_000_000
KILLED_AT_MOST: Final = 3
"""In one call: each costs the time limit twice, and a drain has a limit of its own."""


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
        """Render apart; a row at which the process dies is to blame if it dies there alone."""
        results: list[Result | Killed] = []
        killed = 0
        while len(results) < len(rows) and killed < KILLED_AT_MOST:
            came_out = self._apart(route, rows[len(results) :])
            if not isinstance(came_out, DiedAt):
                return results + list(came_out)
            results += came_out.results
            alone = self._apart(route, [rows[len(results)]])
            if isinstance(alone, DiedAt):
                killed += 1
                results.append(Killed())
            else:
                results += alone
        return results

    def _apart(self, route: Route, rows: list[Row]) -> list[Result] | DiedAt:
        assert route.template is not None
        return render_isolated(
            self.templates_folder,
            route.template.name,
            rows,
            route.settings,
            seconds=ISOLATED_SECONDS,
            memory_bytes=ISOLATED_BYTES,
        )

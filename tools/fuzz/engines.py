"""Jsonnet engines in processes of their own: rjsonnet may crash, gojsonnet must not be forked.

A process that is spawned can import this module, which it could not if it were `__main__`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal

from segrelay.jsonnet.engines.engines import TemplateEngines
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.judge import EngineModule, judge
from segrelay.jsonnet.engines.rows_evaluator import Input
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.rendered import Rendered, TemplateBroken
from segrelay.templates import LYTEMPLATES

EngineOutcome = tuple[Literal["value", "assert", "error", "died", "broken"], Any]
_SECONDS: Final = 20.0


@dataclass(slots=True)
class FuzzEngine:
    """The engines of a worker in a process of their own, which is started again if it died."""

    _pool: ProcessPoolExecutor | None = None

    def render(
        self, folder: Path, template: str, profiles: Sequence[bytes], settings: bytes
    ) -> list[EngineOutcome]:
        """Return an outcome for each profile; it is `died` for all if the process has died."""
        self._pool = self._pool or ProcessPoolExecutor(1, get_context("spawn"), _say_nothing)
        try:
            asked = self._pool.submit(_evaluated, folder, template, profiles, settings)
            return asked.result(_SECONDS)
        except (BrokenProcessPool, TimeoutError):
            self.close()
            return [("died", None)] * len(profiles)

    def close(self) -> None:
        """End the process of the engine."""
        if self._pool is not None:
            for process in self._pool._processes.values():  # noqa: SLF001 - it may hang
                process.kill()
            self._pool.shutdown()
        self._pool = None


def _say_nothing() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics print their stack


def _evaluated(
    folder: Path, template: str, profiles: Sequence[bytes], settings: bytes
) -> list[EngineOutcome]:
    try:
        engines = TemplateEngines(TemplateFolder(folder, LYTEMPLATES).bundle(template))
    except TemplateBroken as broken:
        return [("broken", str(broken))] * len(profiles)
    answers = engines.evaluate([Input(profile, settings) for profile in profiles])
    said = [each.body.decode() if isinstance(each, Rendered) else each for each in answers]
    return [_outcome(each) for each in said]


def judged(
    folder: Path,
    template: str,
    profiles: Sequence[bytes],
    settings: bytes,
    engine: EngineModule = "gojsonnet",
) -> list[EngineOutcome]:
    """Return an engine's outcome for each profile, rendered event by event."""
    bundle = TemplateFolder(folder, LYTEMPLATES).bundle(template)
    return [
        ("died", None) if said is None else _outcome(said)
        for said in judge(engine, bundle, profiles, settings, seconds=_SECONDS)
    ]


def _outcome(said: str | Failure) -> EngineOutcome:
    if isinstance(said, str):
        return ("value", json.loads(said))
    return ("assert" if said.asserted else "error", said.message)

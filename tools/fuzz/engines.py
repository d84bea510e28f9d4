"""Jsonnet engines in processes of their own: rjsonnet may crash, gojsonnet must not be forked.

A process that is spawned can import this module, which it could not if it were `__main__`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
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

    _process: SpawnProcess | None = None
    _pipe: Connection | None = field(default=None, repr=False)

    def render(
        self, folder: Path, template: str, profiles: Sequence[bytes], settings: bytes
    ) -> list[EngineOutcome]:
        """Return an outcome for each profile; it is `died` for all if the process has died."""
        pipe = self._connected()
        try:
            pipe.send((str(folder), template, list(profiles), settings))
            if pipe.poll(_SECONDS):
                answer: list[EngineOutcome] = pipe.recv()
                return answer
        except (EOFError, OSError):
            pass
        self.close()
        return [("died", None)] * len(profiles)

    def close(self) -> None:
        """End the process of the engine."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None

    def _connected(self) -> Connection:
        if self._process is None or self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe


def _serve(pipe: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics print their stack
    while True:
        folder, template, profiles, settings = pipe.recv()
        bundle = TemplateFolder(Path(folder), LYTEMPLATES).bundle(template)
        try:
            engines = TemplateEngines(bundle)
        except TemplateBroken as broken:
            pipe.send([("broken", str(broken))] * len(profiles))
            continue
        answers = engines.evaluate([Input(profile, settings) for profile in profiles])
        said = [each.body.decode() if isinstance(each, Rendered) else each for each in answers]
        pipe.send([_outcome(each) for each in said])


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

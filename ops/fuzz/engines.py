"""Jsonnet engines in separate processes: rjsonnet may crash, and gojsonnet must not be forked."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final, Literal

from worker.jsonnet.engines import failures as jsonnet_errors
from worker.jsonnet.engines.failures import Failure
from worker.jsonnet.engines.natives import HASHES, MAX_STACK
from worker.jsonnet.engines.rewrite import rewrite
from worker.jsonnet.engines.rows_evaluator import Input, RowsEvaluator, inner_sources
from worker.jsonnet.files import TemplateFolder, resolutions

EngineOutcome = tuple[Literal["value", "assert", "error", "died"], Any]
_SECONDS: Final = 20.0
_GROUP: Final = 50


@dataclass(slots=True)
class FuzzEngine:
    """A Jsonnet engine in a process, which is started again when it has died.

    Args:
        name: `rjsonnet` in batches as the worker renders, or `gojsonnet`, event by event.
    """

    name: Literal["rjsonnet", "gojsonnet"]
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
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None

    def _connected(self) -> Connection:
        if self._process is None or self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(self.name, theirs), daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe


def _serve(name: str, pipe: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics print their stack
    run = _in_batches if name == "rjsonnet" else _one_by_one
    inner = inner_sources()
    while True:
        folder, template, profiles, settings = pipe.recv()
        pipe.send(run(Path(folder), template, profiles, settings, inner))


def _in_batches(
    folder: Path, template: str, profiles: list[bytes], settings: bytes, inner: dict[str, str]
) -> list[EngineOutcome]:
    bundle = TemplateFolder(folder).bundle(template)
    evaluator = RowsEvaluator(rewrite(bundle), resolutions(bundle), inner)
    events = [Input(profile, settings) for profile in profiles]
    return [_outcome(said) for said in evaluator.evaluate(events, _GROUP)]


def _one_by_one(
    folder: Path, template: str, profiles: list[bytes], settings: bytes, inner: dict[str, str]
) -> list[EngineOutcome]:
    module = importlib.import_module("_gojsonnet")
    bundle = TemplateFolder(folder).bundle(template)
    resolve = resolutions(bundle)
    sources = {**inner, **{name: file.text for name, file in bundle.files.items()}}

    def imported(where: str, path: str) -> tuple[str, bytes]:
        found = resolve.get((where.rstrip("/"), path), path)
        return found, sources[found].encode()

    outcomes: list[EngineOutcome] = []
    for profile in profiles:
        natives = {
            "profile": ((), partial(str, profile, "utf-8")),
            "settings": ((), partial(str, settings, "utf-8")),
            **HASHES,
        }
        try:
            text = module.evaluate_snippet(
                "/main",
                f"import {json.dumps(bundle.root)}",
                max_stack=MAX_STACK,
                import_callback=imported,
                native_callbacks=natives,
            )
        except RuntimeError as error:
            outcomes.append(_outcome(jsonnet_errors.read(str(error))))
        else:
            outcomes.append(_outcome(text))
    return outcomes


def _outcome(said: str | Failure) -> EngineOutcome:
    if isinstance(said, str):
        return ("value", json.loads(said))
    return ("assert" if said.asserted else "error", said.message)

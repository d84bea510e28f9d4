"""The process of a judge: `python -m segrelay.jsonnet.engines.judging` answers what `judge` asks.

It imports next to nothing: it is started for each template, and for errors without a place.
"""

from __future__ import annotations

import importlib
import json
import math
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from segrelay.jsonnet.engines.failures import HASHES, MAX_STACK, Natives


def _evaluate_all(request: dict[str, Any]) -> None:
    """Evaluate the profiles and write one line for each, so that a crash loses only later ones."""
    with suppress(ImportError):  # where processor time has no limit, whoever waits has one
        resource = importlib.import_module("resource")
        seconds = math.ceil(request["seconds"])
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    module = importlib.import_module(request["module"])
    imported = _importer(request, as_bytes=request["module"] != "rjsonnet")
    code = f"import {json.dumps(request['root'])}"
    for profile in request["profiles"]:
        natives: Natives = {
            "profile": ((), partial(str, profile)),
            "settings": ((), lambda: request["settings"]),
            **HASHES,
        }
        try:
            value = module.evaluate_snippet(
                "/main",
                code,
                max_stack=MAX_STACK,
                import_callback=imported,
                native_callbacks=natives,
            )
        except RuntimeError as error:
            said = {"error": str(error)}
        else:
            said = {"value": value}
        # Bytes, as everywhere between processes: a stream of text has the encoding of the locale.
        sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
        sys.stdout.buffer.flush()


def _importer(
    request: dict[str, Any], *, as_bytes: bool
) -> Callable[[str, str], tuple[str, str | bytes]]:
    resolve: dict[tuple[str, str], str] = request["resolve"]
    sources: dict[str, str] = request["sources"]

    def imported(folder: str, path: str) -> tuple[str, str | bytes]:
        name = resolve.get((folder.rstrip("/"), path), path)
        return name, sources[name].encode() if as_bytes else sources[name]

    return imported


if __name__ == "__main__":
    _evaluate_all(pickle.load(sys.stdin.buffer))  # noqa: S301 - from our parent

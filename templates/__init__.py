"""The shipped templates, their samples, and the library that every template may use."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import orjson

from segrelay.jsonnet.files import Language, Library, LibraryFunction

SHIPPED_FOLDER: Final = Path(__file__).parent
LIBRARY_FOLDER: Final = SHIPPED_FOLDER / "lib"
SAMPLES_FOLDER: Final = SHIPPED_FOLDER / "samples"


def _functions() -> Mapping[str, LibraryFunction]:
    from segrelay.templates.library import FUNCTIONS  # noqa: PLC0415 - a process that compiles
    # nothing starts sooner without it.

    return FUNCTIONS


@cache
def _samples() -> tuple[bytes, ...]:
    samples = (orjson.loads(path.read_bytes()) for path in sorted(SAMPLES_FOLDER.glob("*.json")))
    return tuple(orjson.dumps(sample.get("data", sample)) for sample in samples)


LYTEMPLATES: Final = Library(
    LIBRARY_FOLDER,
    "lytemplates.libsonnet",
    "library.libsonnet",
    _functions,
    _samples,
    {".js": Language("JavaScript", "segrelay.javascript.engine")},
)
LYTICS_TYPES: Final = {".jsonnet": "jsonnet", ".js": "js1"}
"""The endings of templates, and what Lytics calls their languages."""

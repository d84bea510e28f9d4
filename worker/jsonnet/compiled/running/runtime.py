"""The names that generated code may refer to."""

from __future__ import annotations

from typing import Any

from worker.jsonnet.compiled.running import library, operators, printing, values
from worker.jsonnet.compiled.running.library import LIBRARY
from worker.jsonnet.compiled.running.limits import tick
from worker.jsonnet.compiled.running.natives import doubtful
from worker.jsonnet.compiled.running.standard import NATIVES


def names_of_the_runtime() -> dict[str, Any]:
    """Return what generated code may refer to."""
    shared = [each for module in (operators, printing, values) for each in vars(module).items()]
    return {
        **{name: value for name, value in shared if not name.startswith("_")},
        **{f"std_{name}": native.run for name, native in NATIVES.items()},
        **{f"val_{name}": native.as_value() for name, native in NATIVES.items()},
        **{f"lib_{name}": entry.run for name, entry in LIBRARY.items()},
        "function_of": library.function_of,
        "library_of": library.library_of,
        "doubtful": doubtful,
        "tick": tick,
    }

"""The names that generated code may refer to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.jsonnet.compiled.running import library, operators, printing, values
from worker.jsonnet.compiled.running.formats import formatted
from worker.jsonnet.compiled.running.library import LIBRARY
from worker.jsonnet.compiled.running.limits import tick
from worker.jsonnet.compiled.running.natives import doubtful
from worker.jsonnet.compiled.running.standard import NATIVES


def names_of_the_runtime() -> dict[str, Any]:
    """Return what generated code may refer to."""
    functions: list[Callable[..., Any]] = [
        *(operators.plus, operators.plus_all, operators.minus, operators.times),
        *(operators.divided, operators.remainder, operators.negated, operators.equal),
        *(
            operators.bitwise,
            operators.inverted,
            operators.less,
            operators.index,
            operators.sliced,
            operators.add_to_base,
        ),
        *(
            operators.each,
            operators.over,
            operators.joined,
            operators.composed,
            operators.layer_names,
        ),
        *(
            operators.failed,
            operators.failing,
            printing.manifest,
            values.take,
            values.call,
            values.has_field,
        ),
        *(values.string, values.boolean, values.numeric, doubtful, tick, formatted),
        *(values.Lazy, values.Func, values.Layer, values.Composite, library.library_of),
    ]
    return {
        **{function.__name__: function for function in functions},
        **{f"std_{name}": native.run for name, native in NATIVES.items()},
        **{f"val_{name}": native.as_value() for name, native in NATIVES.items()},
        **{f"lib_{name}": entry.run for name, entry in LIBRARY.items()},
        "function_of": library.function_of,
        "MISSING": values.MISSING,
    }

"""The compiler of templates to Python: `compile_template` returns a `Compiled` or a `NotCompiled`.

The compiled form never invents an error: where it is not sure it raises `Doubtful`, and the engine
of record is asked.

What compiles is imported by the first template that is compiled: a process that renders by the
engine alone starts sooner without it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from types import CodeType
from typing import Any, Final

from segrelay.jsonnet.compiled.compiling.emitter import OutsideSubset
from segrelay.jsonnet.compiled.running.limits import (
    ENDLESS,
    FAILED,
    TOO_LARGE,
    AssertFailed,
    Doubtful,
    Exhausted,
    begin,
    noted,
    tick,
)
from segrelay.jsonnet.compiled.running.natives import (
    doubtful,
    function_of,
    library_of,
    reason_of,
)
from segrelay.jsonnet.files import Bundle, LibraryFunction
from segrelay.jsonnet.syntax.tokens import location
from segrelay.jsonnet.syntax.tree import room

__all__ = [
    "AssertFailed",
    "Compiled",
    "Doubtful",
    "Exhausted",
    "NotCompiled",
    "compile_template",
]

_UNSURE: Final = (
    Doubtful,
    ArithmeticError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
"""Exceptions of compiled code that leave an event to the engine; a signal raises others."""
_ONE_AT_A_TIME: Final = threading.Lock()
_CODES_KEPT: Final = 32
"""The number of templates whose code is kept in memory, so that it is not compiled again."""


@dataclass(frozen=True, slots=True)
class NotCompiled:
    """A template that only Jsonnet renders.

    Args:
        file: The file of the construct that is not compiled; "" if it is about no place.
    """

    what: str
    file: str = ""
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled template."""

    source: str
    run: Callable[[Any, Any], Any]

    def render(self, profile: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """Return the template's JSON value; it shares no container with the profile.

        Raises:
            AssertFailed: An `assert` of the template failed.
            Exhausted: It does not end, or takes more than an event may.
            Doubtful: Only Jsonnet can tell.
        """
        with _ONE_AT_A_TIME:
            begin()
            try:
                value = self._value(profile, settings)
            except (AssertFailed, Exhausted):
                if noted() is not None:
                    raise Doubtful(FAILED) from None
                raise
            if (message := noted()) is not None:
                raise AssertFailed(message)
            return value

    def _value(self, profile: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        try:
            return self.run(profile, settings)
        except (RecursionError, SystemError):
            # CPython raises the second where a call's frame finds no memory: deep in a recursion.
            raise Exhausted(ENDLESS) from None
        except MemoryError:
            raise Exhausted(TOO_LARGE) from None
        except _UNSURE as error:
            raise Doubtful(reason_of(error)) from error


def compile_template(bundle: Bundle) -> Compiled | NotCompiled:
    """Compile a template, or return why it is not compiled."""
    try:
        with room(), warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # templates do odd things with constants
            source, code = _code(bundle)
            names = names_of_the_runtime(bundle.library.functions())
            exec(code, names)  # noqa: S102 - only our own words
    except OutsideSubset as refused:
        line, column = location(bundle.files[refused.file].text, refused.at)
        return NotCompiled(refused.what, refused.file, line, column)
    except Doubtful as error:
        return NotCompiled(f"what only Jsonnet understands ({error})")
    except (SyntaxError, RecursionError, MemoryError) as error:
        return NotCompiled(f"expressions that are nested too deep for Python ({error})")
    return Compiled(source, names["render"])


@lru_cache(_CODES_KEPT)
def _code(bundle: Bundle) -> tuple[str, CodeType]:
    """Return the Python source of a compiled template, and its code object."""
    from segrelay.jsonnet.compiled.compiling.compiler import Compiler  # noqa: PLC0415 - see above

    source = Compiler(bundle).source()
    return source, compile(source, bundle.root, "exec")


def names_of_the_runtime(functions: Mapping[str, LibraryFunction]) -> dict[str, Any]:
    """Return the functions and values of the runtime that generated code may refer to, by name."""
    from segrelay.jsonnet.compiled.running import operators, printing, values  # noqa: PLC0415 - see above
    from segrelay.jsonnet.compiled.running.standard import NATIVES  # noqa: PLC0415

    shared = [each for module in (operators, printing, values) for each in vars(module).items()]
    return {
        **{name: value for name, value in shared if not name.startswith("_")},
        **{f"std_{name}": native.run for name, native in NATIVES.items()},
        **{f"val_{name}": native.as_value() for name, native in NATIVES.items()},
        **{f"lib_{name}": entry.run for name, entry in functions.items()},
        "function_of": partial(function_of, functions),
        "library_of": partial(library_of, functions),
        "doubtful": doubtful,
        "tick": tick,
    }

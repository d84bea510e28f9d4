"""Reports what does not parse, with file, line and column, before a template is ever rendered.

The reference implementation is asked first: it knows places and unknown variables, and refuses what
is nested too deep. Then rjsonnet, which renders. Neither evaluates anything of the file. Where the
reference implementation is not installed (Linux on ARM), rjsonnet is asked alone.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

import rjsonnet

from worker.adapters.jsonnet import failures as jsonnet_errors
from worker.adapters.jsonnet import tokens as lexer
from worker.adapters.jsonnet.failures import Failure
from worker.adapters.jsonnet.files import Bundle, SourceFile, shown
from worker.errors import TemplateBroken

REFERENCE: ModuleType | None
"""The reference implementation; None where it is not installed."""
try:
    import _jsonnet
except ImportError:
    REFERENCE = None
else:
    REFERENCE = _jsonnet
_NOT_EVALUATED: Final = "if true then null else\n"
"""Put before a file: the rest has to parse, and is not evaluated."""
_PROBE: Final = "templates:/probe"


def check(bundle: Bundle) -> None:
    """Parse the files of a bundle with both engines.

    Raises:
        TemplateBroken: One does not parse.
    """
    for file in bundle.files.values():
        if file.is_code:
            _check_file(file)


def _check_file(file: SourceFile) -> None:
    if not file.tokens:
        raise TemplateBroken(f"{shown(file.name)}: is empty.", shown(file.name), 1, 1)
    for engine in (REFERENCE, rjsonnet):
        if engine is None:
            continue
        try:
            engine.evaluate_snippet(_PROBE, _NOT_EVALUATED + file.text)
        except RuntimeError as error:
            raise _broken(file, _read(str(error))) from error


def _read(text: str) -> Failure:
    """Read the engine's text; rjsonnet puts the place of a syntax error in an indented line."""
    return jsonnet_errors.read(text, frozenset({_PROBE}))


def _broken(file: SourceFile, failure: Failure) -> TemplateBroken:
    name = shown(file.name)
    where = f"{name}:{failure.line}:{failure.column}" if failure.line else name
    message = f"{where}: {failure.message}"
    damage = lexer.markdown_damage(file.tokens)
    if damage is None:
        return TemplateBroken(message, name, failure.line, failure.column)
    line, column = lexer.place(file.text, damage[0])
    hint = (
        f'{name}:{line}:{column}: "{damage[1]}" is damage from Markdown: a page put a backslash'
        " there when the template was copied; remove such backslashes. (The engine says:"
        f" {message})"
    )
    return TemplateBroken(hint, name, line, column)

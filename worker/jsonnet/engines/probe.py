"""The test whether rjsonnet parses a template, made before the template renders anything.

Our own parser has read the files by then, and found them right. The engine may be older than the
language: it evaluates nothing of a file here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import rjsonnet

from worker.errors import TemplateBroken
from worker.jsonnet.engines import failures as jsonnet_errors
from worker.jsonnet.files import Bundle, SourceFile, shown

_NOT_EVALUATED: Final = "if true then null else\n"
"""Text before a file that makes the engine parse the rest without evaluating it."""
_PROBE: Final = "templates:/probe"
_FILES_KEPT: Final = 64
"""Files that were found to be parsed; templates share the library's files."""


def check(bundle: Bundle) -> None:
    """Parse the files of a bundle with the engine.

    Raises:
        TemplateBroken: One does not parse.
    """
    for file in bundle.files.values():
        if file.is_code:
            _check_file(file)


def _check_file(file: SourceFile) -> None:
    try:
        _parse(file.text)
    except RuntimeError as error:
        # It puts the place of a syntax error in an indented line.
        failure = jsonnet_errors.read(str(error), frozenset({_PROBE}))
        name = shown(file.name)
        where = f"{name}:{failure.line}:{failure.column}" if failure.line else name
        message = f"{where}: the engine does not parse this: {failure.message}"
        raise TemplateBroken(message, name, failure.line, failure.column) from error


@lru_cache(_FILES_KEPT)
def _parse(text: str) -> None:
    rjsonnet.evaluate_snippet(_PROBE, _NOT_EVALUATED + text)

"""Compares what the worker rendered with what other engines make of the untouched files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, assert_never

from worker.checks.finding import Finding
from worker.jsonnet.engines.failures import Failure
from worker.jsonnet.engines.judge import EngineModule
from worker.jsonnet.rendered import Asserted, Rendered, Result, TemplateFailed

Said = str | Failure | None
"""The verdict of an engine: a JSON text, a failure, or None if nobody can tell."""

_REFERENCE: Final = "jsonnet"
_LYTICS: Final = "gojsonnet"
"""The engine that decides in doubt: Lytics runs one of its family."""


def disagreements(
    label: str, result: Result, said: Mapping[EngineModule, Said]
) -> Iterator[Finding]:
    """Say where engines disagree with the worker about a sample.

    Where only the reference implementation does, and go-jsonnet agrees with the worker, the
    template is fit: Lytics would get what the worker gets.
    """
    ours = _value_of(result)
    different = {
        engine: difference
        for engine, text in said.items()
        if text is not None and (difference := _difference(ours, _read(text)))
    }
    is_confirmed = said.get(_LYTICS) is not None and different.keys() == {_REFERENCE}
    for engine, difference in different.items():
        who = "the untouched files" if engine == "rjsonnet" else f"the engine {engine}"
        message = f"the worker and {who} disagree about the sample ({label}): {difference}"
        if is_confirmed:
            confirmed = f"; {_LYTICS}, which is what Lytics runs, agrees with the worker."
            yield Finding("warning", message + confirmed)
        else:
            yield Finding("error", message + ".")


def _read(text: str | Failure) -> Any:
    return text if isinstance(text, Failure) else json.loads(text)


def _difference(ours: Any, theirs: Any) -> str:
    """Return both results where they first differ, side by side; "" where they agree."""
    if isinstance(ours, Failure) and isinstance(theirs, Failure):
        return ""
    if isinstance(ours, Failure) or isinstance(theirs, Failure):
        return f"{_shown(ours)}, {_shown(theirs)}"
    if ours == theirs:
        return ""
    path, mine, other = first_difference(ours, theirs)
    return f"{_shown(mine)}, {_shown(other)}, at {path}"


def _value_of(result: Result) -> Any:
    match result:
        case Rendered(body):
            return json.loads(body)
        case Asserted(message):
            return Failure(message, asserted=True)
        case TemplateFailed(message):
            return Failure(message)
        case _:
            assert_never(result)


def _shown(value: object) -> str:
    if isinstance(value, Failure):
        return f"an error ({value.message})"
    return json.dumps(value, default=str)[:80]


_ABSENT: Final = object()


def first_difference(ours: Any, theirs: Any, path: str = "") -> tuple[str, Any, Any]:
    """Return where two JSON values differ first, and what stands there; "nothing" for absence."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            mine, other = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
            if mine != other:
                return first_difference(mine, other, f"{path}.{key}" if path else key)
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if mine != other:
                return first_difference(mine, other, f"{path}[{index}]")
    mine, other = ("nothing" if value is _ABSENT else value for value in (ours, theirs))
    return path or "the top", mine, other

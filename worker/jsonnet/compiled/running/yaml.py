"""`std.manifestYamlDoc`, line by line as the standard library of Jsonnet writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worker.jsonnet.compiled.running.limits import ENDLESS, Doubtful, Exhausted
from worker.jsonnet.compiled.running.printing import MAX_DEPTH, printed, quoted
from worker.jsonnet.compiled.running.values import field_names, is_object, take


def yaml_of(value: Any, *, indents_arrays: bool) -> str:
    """Return a value as YAML, with its keys in quotes.

    Args:
        value: The value.
        indents_arrays: An array in an object stands further to the right than its key.
    """
    return _yaml(value, "", indents_arrays=indents_arrays)


def _yaml(value: Any, here: str, *, indents_arrays: bool) -> str:
    if len(here) > 2 * MAX_DEPTH:
        raise Exhausted(ENDLESS)
    if value.__class__ is str:
        return _text(value, here)
    if not _is_filled(value):
        return _empty(value)
    lines = _elements if value.__class__ is list else _fields
    return f"\n{here}".join(lines(value, here, indents_arrays=indents_arrays))


def _elements(value: list[Any], here: str, *, indents_arrays: bool) -> Iterator[str]:
    for handle in value:
        element = take(handle)
        inner = f"{here}  " if _is_filled(element) else here
        space = f"\n{inner}" if element.__class__ is list and element else " "
        yield f"-{space}{_yaml(element, inner, indents_arrays=indents_arrays)}"


def _fields(value: Any, here: str, *, indents_arrays: bool) -> Iterator[str]:
    for name in field_names(value):
        field = take(value[name])
        is_filled = _is_filled(field)
        is_further = is_filled and (field.__class__ is not list or indents_arrays)
        inner = f"{here}  " if is_further else here
        space = f"\n{inner}" if is_filled else " "
        yield f"{quoted(name)}:{space}{_yaml(field, inner, indents_arrays=indents_arrays)}"


def _is_filled(value: Any) -> bool:
    """Return whether it is an array or an object with anything in it."""
    if is_object(value):
        return bool(field_names(value))
    return value.__class__ is list and bool(value)


def _empty(value: Any) -> str:
    if value.__class__ is list:
        return "[]"
    if is_object(value):
        if field_names(value, hidden=True):
            raise Doubtful
        return "{}"
    return printed(value, ", ", ": ")


def _text(text: str, here: str) -> str:
    if not text:
        return '""'
    if text.endswith("\n"):
        return f"\n{here}  ".join(["|", *text.split("\n")[:-1]])
    return quoted(text)

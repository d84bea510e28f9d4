"""Modules that are loaded when something of them is used first: a command starts without the rest.

Types and the rules about imports need the usual statement beside it:

    if TYPE_CHECKING:
        import httpx
    else:
        httpx = deferred("httpx")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def deferred(name: str) -> Any:
    """Return a stand-in for a module, which imports it for the first attribute that is read."""
    return _Deferred(name)


class _Deferred:
    """Stands for a module; an attribute that was read once is found without a detour."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value

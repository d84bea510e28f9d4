"""Renders Jsonnet templates for many events: compiled to Python if that is sure, or by an engine.

    library = Library(Path("lib"), "event.libsonnet", "inner.libsonnet")
    renderer = Renderer(Path("templates"), library)
    template = renderer.load("hello.jsonnet")
    [result] = renderer.render(template, [Row(b'{"name": "Ann"}')])

README.md says more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from segrelay.jsonnet.compiled import Compiled, NotCompiled, compile_template
    from segrelay.jsonnet.engines.judge import judge, judges
    from segrelay.jsonnet.files import Bundle, Library, LibraryFunction, TemplateFolder
    from segrelay.jsonnet.isolated import render_isolated
    from segrelay.jsonnet.rendered import Asserted, Rendered, Row, TemplateBroken, TemplateFailed
    from segrelay.jsonnet.renderer import Renderer

__all__ = [
    "Asserted",
    "Bundle",
    "Compiled",
    "Library",
    "LibraryFunction",
    "NotCompiled",
    "Rendered",
    "Renderer",
    "Row",
    "TemplateBroken",
    "TemplateFailed",
    "TemplateFolder",
    "compile_template",
    "judge",
    "judges",
    "render_isolated",
]
_MODULES: Final = {
    "compiled": ("Compiled", "NotCompiled", "compile_template"),
    "engines.judge": ("judge", "judges"),
    "files": ("Bundle", "Library", "LibraryFunction", "TemplateFolder"),
    "isolated": ("render_isolated",),
    "rendered": ("Asserted", "Rendered", "Row", "TemplateBroken", "TemplateFailed"),
    "renderer": ("Renderer",),
}


def __getattr__(name: str) -> Any:
    """Load a name when it is used: its own throw-away processes start without the rest."""
    module = next((each for each, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)

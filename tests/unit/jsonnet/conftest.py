import pytest

from segrelay.jsonnet.compiled import Sources, compiled

LIBRARY = "lytemplates.libsonnet"


@pytest.fixture
def compile_text():
    """Compile a template; helpers by the path that it imports them by."""

    def compile_(text, helpers=None):
        texts = {"t.jsonnet": text, LIBRARY: "", **(helpers or {})}
        targets = {(importer, path): path for importer in texts for path in texts}
        return compiled(Sources("t.jsonnet", texts, targets, LIBRARY))

    return compile_


@pytest.fixture
def evaluate(compile_text):
    """Compile and render a template for one profile."""

    def value(text, profile=None, settings=None, helpers=None):
        return compile_text(text, helpers).render(profile or {}, settings or {})

    return value

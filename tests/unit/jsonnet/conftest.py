import pytest

from segrelay.jsonnet.compiled import compile_template
from segrelay.jsonnet.files import TemplateFolder
from segrelay.templates import LYTEMPLATES


@pytest.fixture
def compile_text(tmp_path):
    """Compile a template; helpers by the path that it imports them by."""

    def compile_(text, helpers=None):
        for name, source in {"t.jsonnet": text, **(helpers or {})}.items():
            (tmp_path / name).write_text(source)
        return compile_template(TemplateFolder(tmp_path, LYTEMPLATES).bundle("t.jsonnet"))

    return compile_


@pytest.fixture
def evaluate(compile_text):
    """Compile and render a template for one profile."""

    def value(text, profile=None, settings=None, helpers=None):
        return compile_text(text, helpers).render(profile or {}, settings or {})

    return value

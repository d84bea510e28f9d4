import json

import pytest

from segrelay.jsonnet.rendered import Rendered, Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES

ANN = {
    "email": "ann@example.com",
    "segment_events": [
        {"id": "a" * 32, "slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00.5Z"}
    ],
}


def row_of(settings=None, time_us=0, **fields):
    return Row(json.dumps(ANN | fields).encode(), settings or {}, time_us)


@pytest.fixture
def loaded(tmp_path):
    """Load a template; return its renderer, and the template."""

    def load(source):
        (tmp_path / "t.js").write_text(source)
        renderer = Renderer(tmp_path, LYTEMPLATES)
        return renderer, renderer.load("t.js")

    return load


@pytest.fixture
def rendered(loaded):
    """Render rows with a template; a body as it is parsed, or the result that is none."""

    def render(source, *rows):
        renderer, template = loaded(source)
        results = renderer.render(template, rows or [row_of()])
        return [json.loads(each.body) if isinstance(each, Rendered) else each for each in results]

    return render


@pytest.fixture
def valued(rendered):
    """Return the value of an expression about the profile `data`."""

    def value(expression, row=None):
        [body] = rendered(
            f"function template(data) {{ return {{ value: {expression} }}; }}", row or row_of()
        )
        return body["value"] if isinstance(body, dict) else body

    return value

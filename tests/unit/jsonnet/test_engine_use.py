"""How many of the last events of a template needed the engine, and why, is counted."""

import pytest

from segrelay.jsonnet.rendered import Row
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES

LIBRARY = "local event = import 'lytemplates.libsonnet';\n"


@pytest.fixture
def renderer(tmp_path):
    return Renderer(tmp_path, LYTEMPLATES)


def _rows(*numbers):
    return [Row(f'{{"n": {number}}}'.encode()) for number in numbers]


def test_events_that_needed_the_engine_are_counted_with_the_reason(tmp_path, renderer):
    (tmp_path / "t.jsonnet").write_text(
        LIBRARY + "if event.get('n') > 1 then std.exp(event.get('n')) else event.get('n')"
    )
    template = renderer.load("t.jsonnet")

    renderer.render(template, _rows(0, 1, 2, 3))

    assert renderer.engine_use == {"t.jsonnet": {"": 2, "std.exp": 2}}


def test_an_event_that_is_rendered_safely_counts_once(tmp_path, renderer):
    (tmp_path / "t.jsonnet").write_text(LIBRARY + "{ n: event.get('n') }")
    template = renderer.load("t.jsonnet")
    rows = _rows(*range(20))

    for row in rows:
        renderer.render_safely(template, row)

    assert renderer.engine_use == {"t.jsonnet": {"": 20}}


def test_a_template_that_is_not_compiled_needs_the_engine_for_all_events(tmp_path, renderer):
    (tmp_path / "t.jsonnet").write_text("(function(s) 4)(std)")
    template = renderer.load("t.jsonnet")

    renderer.render(template, _rows(1, 2))

    assert list(renderer.engine_use["t.jsonnet"].values()) == [2]
    assert "std as a value" in next(iter(renderer.engine_use["t.jsonnet"]))

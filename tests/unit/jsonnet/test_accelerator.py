"""The compiled form beside the engine of record: who answers, and when it is turned off."""

import json

import pytest
from structlog.testing import capture_logs

from segrelay.jsonnet.accelerated import BOTH_EVERY, BOTH_TOGETHER, is_same
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.rendered import Rendered, Row, TemplateFailed
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES

LIBRARY = "local event = import 'lytemplates.libsonnet';\n"
DISPUTED = """{
  local n = event.get('n', ''),
  n: if std.isNumber(n) && !std.member('abc', '') then error 'no' else std.escapeStringJson(n)
}"""
DIFFERS = LIBRARY + DISPUTED
"""Numbers fail where "" is no member of "abc": so it is for rjsonnet and the reference
implementation, but not for go-jsonnet and the compiled form."""


@pytest.fixture
def loaded(tmp_path):
    def load(source, **options):
        (tmp_path / "t.jsonnet").write_text(source)
        renderer = Renderer(tmp_path, LYTEMPLATES, **options)
        return renderer, renderer.load("t.jsonnet")

    return load


def _rows(*values, settings=None):
    return [Row(json.dumps({"n": value}).encode(), settings or {}) for value in values]


def test_the_first_event_of_each_settings_is_rendered_by_both(loaded):
    renderer, template = loaded(DIFFERS)
    assert renderer.render(template, _rows("a", settings={"of": "one"}))[0] == Rendered(
        b'{"n":"\\"a\\""}'
    )
    assert not renderer.doubted

    with capture_logs() as logs:
        results = renderer.render(template, _rows(1, "b", settings={"of": "another"}))

    assert isinstance(results[0], TemplateFailed)
    assert renderer.doubted == {"t.jsonnet": 1}
    assert [line["template"] for line in logs] == ["t.jsonnet"]
    assert logs[0]["log_level"] == "error"


def test_a_few_events_of_many_are_rendered_by_both_and_a_difference_turns_the_compiled_form_off(
    loaded,
):
    renderer, template = loaded(DIFFERS)
    renderer.render(template, _rows("first of these settings"))
    good = _rows(*["a"] * (BOTH_EVERY - 1 - BOTH_TOGETHER))

    before = renderer.render(template, [*_rows(1), *good])
    assert isinstance(before[0], Rendered), "it was not compared"
    during = renderer.render(template, _rows(2, 3))
    after = renderer.render(template, _rows(4))

    assert [type(result) for result in during + after] == [TemplateFailed] * 3
    assert renderer.doubted == {"t.jsonnet": 1}


def test_a_difference_on_a_shipped_sample_turns_it_off_at_once(loaded):
    renderer, template = loaded(DIFFERS.replace("'n', ''", "'absent', 1"))

    assert renderer.doubted == {"t.jsonnet": 1}
    assert isinstance(renderer.render(template, _rows(1))[0], TemplateFailed)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (Rendered(b'{"a":1}'), Rendered(b'{"a":1}'), True),
        (Rendered(b'{"b":1,"a":2}'), Rendered(b'{ "a": 2, "b": 1 }'), True),
        (Rendered(b'{"a":1}'), Rendered(b'{"a":true}'), False),
        (Rendered(b'{"a":1}'), Rendered(b'{"a":2}'), False),
        (Rendered(b"[1,2]"), Rendered(b"[2,1]"), False),
        (Rendered(b"1"), Failure("no"), False),
        (Failure("x", asserted=True), Failure("x", asserted=True), True),
        (Failure("x", asserted=True), Failure("y", asserted=True), False),
        (Failure("x", asserted=True), Failure("x"), False),
        (Failure("x", asserted=True), Rendered(b"1"), False),
    ],
)
def test_what_is_the_same(ours, theirs, same):
    assert is_same(ours, theirs) is same


@pytest.mark.parametrize("compiles", [True, False])
def test_each_event_of_a_call_has_the_settings_of_its_own_trigger(loaded, compiles):
    renderer, template = loaded(
        LIBRARY + "[event.jobConfGet('k', 'none'), event.get('n')]", compiles=compiles
    )
    rows = [
        *_rows(1, settings={"k": "a"}),
        *_rows(2),
        *_rows(3, settings={"k": "b"}),
        *_rows(4, settings={"k": "a"}),
    ]

    results = renderer.render(template, rows)

    assert [json.loads(result.body) for result in results] == [
        ["a", 1], ["none", 2], ["b", 3], ["a", 4],
    ]  # fmt: skip


NOT_SIMPLE = (
    LIBRARY
    + """
local n = event.get('n');
local f(n) = if n == 'endless' then f(n) else n;
assert n != 'no' : 'no';
{ n: if n == 'error' then error 'e' else f(n) }
"""
)


def test_only_what_the_compiled_form_renders_is_rendered_safely(loaded):
    renderer, template = loaded(NOT_SIMPLE)
    rows = _rows(1, "no", 2, "error", "endless", 3)

    safe = [renderer.render_safely(template, row) for row in rows]

    one, two, three = (Rendered(b'{"n":%d}' % n) for n in (1, 2, 3))
    assert safe == [one, None, two, None, None, three]


def test_what_is_rendered_safely_is_compared_with_the_engine_as_all_is(loaded):
    renderer, template = loaded(DIFFERS)

    safe = [renderer.render_safely(template, row) for row in _rows("a", 1, *[2] * BOTH_EVERY)]

    assert safe[0] == Rendered(b'{"n":"\\"a\\""}')
    assert safe[-1] is None
    assert renderer.doubts(template)


@pytest.mark.parametrize(("engine", "options"), [("jsonnet", {}), ("auto", {"compiles": False})])
def test_where_only_the_engine_may_render_nothing_is_rendered_safely(loaded, engine, options):
    renderer, template = loaded(DIFFERS, **options)
    rows = _rows(1)

    assert isinstance(renderer.render(template, rows, engine)[0], TemplateFailed)
    assert renderer.render_safely(template, rows[0], engine) is None
    assert not renderer.doubted

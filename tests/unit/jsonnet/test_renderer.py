import json

import orjson
import pytest

from segrelay.jsonnet.rendered import Asserted, Rendered, Row, Template, TemplateFailed
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from tests.waiting import until

LIBRARY = 'local event = import "lytemplates.libsonnet";\n'


@pytest.fixture
def render(tmp_path):
    def rendered(source, profiles, settings=None, **files):
        for name, text in {"t.jsonnet": source, **files}.items():
            (tmp_path / name).write_text(text)
        renderer = Renderer(tmp_path, LYTEMPLATES)
        rows = [
            Row(p if isinstance(p, bytes) else orjson.dumps(p), settings or {}) for p in profiles
        ]
        return renderer.render(renderer.load("t.jsonnet"), rows)

    return rendered


def _values(results):
    return [json.loads(result.body) for result in results]


def test_results_have_the_order_and_number_of_the_rows(render):
    results = render(LIBRARY + "{ n: event.get('n') }", [{"n": n} for n in range(230)])

    assert [value["n"] for value in _values(results)] == list(range(230))


def test_a_failing_event_costs_its_neighbours_nothing(render):
    source = LIBRARY + "assert event.get('n') != 3 : 'three';\n{ n: 10 / event.get('n') }"

    def rendered():
        """Try again where a busy machine gave the engine that knows the line no processor."""
        found = render(source, [{"n": 1}, {"n": 0}, {"n": 2}, {"n": 3}, {"n": 5}])
        return found if found[1].line else None

    results = until(rendered)

    assert results == [
        Rendered(b'{"n":10}'),
        TemplateFailed("attempted to divide by zero", "t.jsonnet", 3),
        Rendered(b'{"n":5}'),
        Asserted("three"),
        Rendered(b'{"n":2}'),
    ]


def test_profiles_that_cannot_be_read_fail_alone(render):
    unreadable = [
        *(b"", b"{", b"7", b'{"a": 1e999}', b"[" * 200 + b"]" * 200),
        *(b'"\xff"', b'{"a": "\\ud800"}', b'{"a": 1, "b": "' + b"x" * 5_000),
    ]

    first, *failed, last = render(
        LIBRARY + "{ a: event.get('a') }", [{"a": 1}, *unreadable, {"a": 2}]
    )

    assert (first, last) == (Rendered(b'{"a":1}'), Rendered(b'{"a":2}'))
    assert [type(one) for one in failed] == [TemplateFailed] * len(unreadable)


def test_an_asserts_message_is_one_line(render):
    assert render("assert false : 'one\ntwo'; 1", [{}]) == [Asserted("one two")]


def test_a_message_says_nothing_of_the_profile(render):
    name = {"name": "Ann Quince, ann@example.com, \x1b[31m+1 555 0100"}

    sources = (
        "assert false : 'no plan for ' + event.get('name'); {}",
        "error 'no plan for ' + event.get('name')",
        "{ a: {}[event.get('name')] }",
        "std.parseInt(event.get('name'))",
    )

    said = [render(LIBRARY + source, [name])[0].message for source in sources]

    assert all(one.startswith("no plan for …") for one in said[:2]), said
    assert not any("Ann" in one or "555" in one or "\x1b" in one for one in said), said


def test_an_error_in_a_helper_names_the_helper(render):
    helper = LIBRARY + "\n{ f(x):: 1 / x }"

    [result] = render("(import 'h.libsonnet').f(0)", [{}], **{"h.libsonnet": helper})

    assert (result.file, result.line) == ("h.libsonnet", 3)


def test_a_change_of_the_file_has_no_effect_until_it_is_loaded_again(tmp_path):
    path = tmp_path / "t.jsonnet"
    path.write_text("1")
    renderer = Renderer(tmp_path, LYTEMPLATES)
    first = renderer.load("t.jsonnet")

    path.write_text("2")
    second = renderer.load("t.jsonnet")

    assert renderer.render(first, [Row(b"{}")]) == [Rendered(b"1")]
    assert renderer.render(second, [Row(b"{}")]) == [Rendered(b"2")]


def test_a_template_that_was_not_loaded_is_a_bug(tmp_path):
    with pytest.raises(ValueError, match="was not loaded by this renderer"):
        Renderer(tmp_path, LYTEMPLATES).render(Template("t.jsonnet", "0" * 12), [Row(b"{}")])


def test_nothing_of_a_profile_is_in_a_repr():
    assert "ann" not in repr(Row(b'{"email": "ann@example.com"}'))
    assert "ann" not in repr(Rendered(b'{"email": "ann@example.com"}'))


def test_the_place_of_an_error_is_that_of_the_reference_implementation(render):
    """The other one names the line at which the variable that can't be evaluated is used."""
    [result] = render("local a = 1,\n  b = a.c,\n  d = b;\n{ x: d }\n", [{}])

    assert (result.file, result.line) == ("t.jsonnet", 2)

"""What rjsonnet is wrong about is rendered as go-jsonnet renders it, by an engine that is right."""

import json
from itertools import product

import orjson
import pytest

from segrelay.jsonnet.engines.judge import judge, judges
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.isolated import DiedAt, render_isolated
from segrelay.jsonnet.rendered import Asserted, Rendered, Row, TemplateBroken, TemplateFailed
from segrelay.jsonnet.renderer import Renderer
from segrelay.ops.templates.check import check_template
from segrelay.ops.templates.workspace import Case
from segrelay.templates import LYTEMPLATES
from tests.nightly import amount

HEAD = "local event = import 'lytemplates.libsonnet';\n"
NOT_COMPILED = "if (function(s) false)(std) then 0 else "
PROFILE = orjson.dumps({"n": -1, "key": "a", "text": "abc", "list": [1, 2, 3], "third": 0.3})
RIGHT = {
    "[1, 2, 3][-1:]": [3],
    "event.get('list')[-2:]": [2, 3],
    "event.get('list')[:event.get('n')]": [1, 2],
    "event.get('text')[:-1]": "ab",
    "std.slice([1, 2, 3], -2, null, 1)": [2, 3],
    "|||-\n  one\n  two\n|||": "one\ntwo",
    "|||\n  \n|||": "\n",
    "|||\n\n    \n\n    x\n   |||": "\n\n\nx\n",
    "|||\n  \n    x\n|||": "\n  x\n",
    "|||\n\tx\n  |||": "x\n",
    "1_000 + 1": 1001,
    "std.objectRemoveKey({}, 'k')": {},
    "std.objectRemoveKey({ a: 1, b: 2 }, event.get('key'))": {"b": 2},
    "std.isOdd(event.get('n'))": True,
    "std.isOdd(-2)": False,
    "0.1 + 0.2 == 0.3": False,
    "event.get('third') == 0.1 + 0.2": False,
    "0.1 + 0.2 != event.get('third')": True,
    "std.trim('\\u000b a\\u2003')": "a",
    "std.manifestYamlDoc({ a: [1, 'x'], b: null, c: 'y\\n' })": None,
    "std.manifestYamlDoc([{ a: [1] }, [[true]]], true)": None,
    "std.escapeStringPython('é\"')": '"é\\""',
    "std.escapeStringDollars('$a')": "$$a",
    "std.assertEqual({ a: 1 }, { a: 1 })": True,
    "std.objectHasEx({ a:: 1 }, 'a', true)": True,
    "std.objectValuesAll({ a:: 1, b: 2 })": [1, 2],
    "std.escapeStringJson(null)": '"null"',
    "std.escapeStringJson([1])": '"[1]"',
    "std.escapeStringJson('\\u007f\\u2028')": '"\\u007f\u2028"',
    "std.manifestJsonMinified('a\\u2028')": '"a\\u2028"',
    "std.manifestJson({ a: '\\u2029' })": '{\n    "a": "\\u2029"\n}',
    "std.manifestJsonEx(['\\u2028'], ' ')": '[\n "\\u2028"\n]',
    "std.toString(std.abs(0))": "-0",
    "std.split('a,b', ',')": ["a", "b"],
    "[std.mantissa(-5), std.mantissa(0.3), std.mantissa(0)]": [-0.625, 0.6, 0],
    "std.foldl(function(a, b) a + b, 'abc', '')": "abc",
    "std.foldr(function(a, b) b + a, 'abc', '')": "cba",
    "std.length(std.thisFile) > 0": True,
    "std.setInter(event.get('text'), 'bcd')": ["b", "c"],
    "std.setMember('a', event.get('text'))": True,
    "std.uniq('aab')": ["a", "b"],
    "std.escapeStringPython(7)": '"7"',
    "std.manifestYamlDoc({ a: event.get('n') }, quote_keys=false)": "a: -1",
}
"""By snippet; None where only the engines are asked."""
FAILING = (
    "std.split('abc', '')",
    "std.splitLimit('abc', '', 1)",
    "[1, 2][-1]",
    "[1, 2][event.get('n') - 0]",
)


@pytest.fixture
def template(tmp_path):
    def write(source):
        (tmp_path / "t.jsonnet").write_text(HEAD + source)
        return tmp_path

    return write


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Let each judge evaluate all the snippets, in one evaluation."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "t.jsonnet").write_text(HEAD + "[\n" + ",\n".join(RIGHT) + "\n]")
    bundle = TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet")
    return {
        engine: json.loads(judge(engine, bundle, [PROFILE], b"{}", seconds=60)[0])
        for engine in judges()
    }


def test_both_other_engines_agree_about_every_snippet(judged):
    assert set(judged) == {"jsonnet", "gojsonnet"}
    for values in judged.values():
        for (snippet, right), value in zip(RIGHT.items(), values, strict=True):
            assert right in (None, value), snippet


EACH = range(len(RIGHT))
RENDERED = amount(
    [(at, at % 3 == 0) for at in EACH], nightly=[(at, by) for at in EACH for by in (False, True)]
)
"""Each snippet by an engine; `test_compiled_beside_engines.py` is about compiled forms."""


@pytest.mark.parametrize(("at", "compiles"), RENDERED)
def test_what_is_rendered_is_what_go_jsonnet_renders(rendered, judged, at, compiles):
    [result] = rendered(HEAD + list(RIGHT)[at], [Row(PROFILE)], compiles=compiles)

    assert isinstance(result, Rendered)
    assert json.loads(result.body) == judged["gojsonnet"][at]


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("snippet", FAILING)
def test_what_the_specification_refuses_fails(rendered, snippet, compiles):
    [result] = rendered(HEAD + snippet, [Row(PROFILE)], compiles=compiles)

    assert isinstance(result, TemplateFailed)


def test_the_event_of_which_the_reference_implementation_dies_is_known(template):
    source = "{ a: [1][-1:], b: std.char(event.get('n')) }"
    bundle = TemplateFolder(template(source), LYTEMPLATES).bundle("t.jsonnet")
    rows = [Row(b'{"n": %d}' % n) for n in (65, 0xD800, 66)]

    outcome = render_isolated(bundle, rows, seconds=30, memory_bytes=1 << 29)

    assert isinstance(outcome, DiedAt)
    assert (outcome.row, outcome.cause, outcome.by_others) == (1, "crash", False)


def test_a_template_that_is_a_function_with_defaults_is_what_that_gives(rendered):
    [result] = rendered("function(x=1) { a: x }", [Row(PROFILE)])

    assert json.loads(result.body) == {"a": 1}


SKIPPING = """
assert event.get("n") != 1 : "one\\nof them";
assert event.get("n") != 2;
local checked = { assert self.n != 3 : "three", n: event.get("n"), last: [1, 2][-1:] };
if event.get("n") == 4 then error "four" else checked
"""


def test_the_reference_implementation_tells_an_assert_from_an_error(rendered):
    rows = [Row(b'{"n": %d}' % n) for n in range(6)]

    results = rendered(HEAD + SKIPPING, rows, compiles=False)

    assert [type(one) for one in results] == [
        *(Rendered, Asserted, Asserted, Asserted, TemplateFailed, Rendered)
    ]
    assert results[4] == TemplateFailed("four", "t.jsonnet", 6)


def test_a_number_that_json_does_not_have_costs_its_own_event(rendered):
    rows = [Row(b'{"n": "ab"}'), Row(b'{"n": 1e999}'), Row(b"{")]

    results = rendered(HEAD + "event.get('n')[-1:]", rows, compiles=False)

    assert [type(one) for one in results] == [Rendered, TemplateFailed, TemplateFailed]


def test_a_value_that_json_does_not_have_fails(rendered):
    [result] = rendered(HEAD + "std.pow(event.get('n'), 0.5)", [Row(PROFILE)])

    assert isinstance(result, TemplateFailed)


CONFUSED = {
    "{ total: event.get('price') * event.get('qty') }": {"price": "12.50", "qty": 3},
    "[x for x in event.get('map')]": {"map": {"a": 1}},
    "[1, 2][event.get('at')]": {"at": -1},
    "std.base64(event.get('text'))": {"text": "日本"},
    "std.contains(event.get('text'), 'a')": {"text": "abc"},
    "std.objectRemoveKey(event.get('map'), 1)": {"map": {"a": 1}},
    "std.startsWith(event.get('list'), [1])": {"list": [1, 2]},
}
"""Profiles with a value of another type than their template expects, for which it has to fail."""


@pytest.mark.parametrize("source", amount(list(CONFUSED)[::4], nightly=list(CONFUSED)))
def test_a_value_of_another_type_fails_as_the_reference_engines_do(rendered, source):
    row = Row(orjson.dumps(CONFUSED[source]))

    for head in (NOT_COMPILED, ""):
        results = rendered(HEAD + head + source, [row, Row(b"{}"), row])
        assert [type(results[at]) for at in (0, 2)] == [TemplateFailed] * 2


NUMBERS = [0.1 + random / 7 for random in range(200)] + [99.99999999999999, 1e-30, 2**53 - 1]


@pytest.mark.parametrize("head", ["", NOT_COMPILED])
def test_a_number_of_a_profile_arrives_as_it_is(rendered, head):
    source = "{ n: event.get('n'), logarithm: std.type(std.log(event.get('n'))) }"

    results = rendered(HEAD + head + source, [Row(orjson.dumps({"n": n})) for n in NUMBERS])

    assert [json.loads(one.body)["n"] for one in results] == NUMBERS


def test_a_number_that_rjsonnet_reads_wrongly_makes_no_event_fail(rendered):
    source = NOT_COMPILED + "if event.get('n') > 99.999999999999995 then error 'too much' else 1"

    [result] = rendered(HEAD + source, [Row(b'{"n": 99.99999999999999}')])

    assert result == Rendered(b"1")


ONE_THIRD = """
local a = event.get("a"), b = event.get("b");
{ same: std.member([a], b) }
"""


def test_a_difference_that_the_other_engines_decide_for_it_does_not_end_the_compiled_form(template):
    folder = template(ONE_THIRD)
    renderer = Renderer(folder, LYTEMPLATES)
    loaded = renderer.load("t.jsonnet")
    row = Row(b'{"a": 0.30000000000000004, "b": 0.3}')

    [result] = renderer.render(loaded, [row])

    assert json.loads(result.body) == {"same": False}
    assert not renderer.doubts(loaded)
    [again] = renderer.render(loaded, [row], "jsonnet")
    assert json.loads(again.body) == {"same": False}


def test_what_no_engine_parses_is_refused_when_it_is_loaded(rendered):
    with pytest.raises(TemplateBroken):
        rendered("|||-\n  one", [])


MESSAGES = ("", ": 'one\\n two'", ": ''", ": ' x '", ": { a: 1 }", ": null", ": 'x: y'")
PLACES = ("assert false %s; %s", "{ assert false %s, a: %s }")
LASTS = ("1", "[1, 2][-1:]")
ASSERTS = list(product(MESSAGES, PLACES, LASTS))


@pytest.mark.parametrize(("message", "where", "last"), amount(ASSERTS[::13], nightly=ASSERTS))
def test_a_failing_assert_is_no_doubt_about_the_compiled_form(template, where, message, last):
    folder = template(where % (message, last))
    case = Case("enter", orjson.loads(PROFILE), {})

    found = [one.message for one in check_template(folder, "t.jsonnet", [case]).findings]
    renderer = Renderer(folder, LYTEMPLATES)
    results = renderer.render(renderer.load("t.jsonnet"), [Row(PROFILE)] * 3)

    assert not [one for one in found if "compiled to Python" in one or "disagree" in one]
    assert renderer.doubted == {}
    assert {type(one) for one in results} == {Asserted}

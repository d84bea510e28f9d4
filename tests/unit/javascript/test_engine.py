"""One event of a template in JavaScript costs only itself, and leaves nothing to the next."""

import os
import subprocess
import sys

import pytest

from segrelay.javascript.engine import NOTHING_RETURNED
from segrelay.jsonnet.isolated import render_isolated
from segrelay.jsonnet.rendered import (
    Asserted,
    Rendered,
    Row,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.jsonnet.renderer import MAX_BODY_BYTES, Renderer
from segrelay.templates import LYTEMPLATES
from tests.nightly import amount
from tests.unit.javascript.conftest import row_of

ONLY_BEN = """function template(data) {{
  if (data.email === "ben@example.com") {{
    {}
  }}
  return {{ a: data.email }};
}}"""
ROWS = (row_of(), row_of(email="ben@example.com"), row_of(email="cay@example.com"))


SLOW = [
    ("try { while (true) {} } catch (e) {}", "it takes too much time"),
    ("new Array(4e9).indexOf(1);", "it takes too much time"),
    ("throw new Proxy({}, { get() { for (;;) {} } });", "it takes too much time"),
]
"""Beside others of their kind, which are tried by day."""


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        *amount([], nightly=SLOW),
        ("while (true) {}", "it takes too much time"),
        ("/(a+)+$/.test('a'.repeat(40) + 'b');", "it takes too much time"),
        ("const a = []; while (true) a.push('x'.repeat(1e6) + a.length);", "it takes more than 64"),
        ("(function f() { return f(); })();", "RangeError: Maximum call stack size exceeded"),
        ("JSON.parse('['.repeat(1e5));", "RangeError: Maximum call stack size exceeded"),
        ("require('fs');", "ReferenceError: require is not defined"),
        ("fetch('http://127.0.0.1');", "ReferenceError: fetch is not defined"),
        ("eval('1');", "ReferenceError: eval is not defined"),
        ("new Function('return 1')();", "TypeError: Function is not defined"),
        ("(() => 1).constructor('return 1')();", "TypeError: Function is not defined"),
        ("(async () => 1).constructor('return 1')();", "TypeError: Function is not defined"),
        ("throw { toString() { for (;;) {} } };", "it takes too much time"),
        ("throw Object.defineProperty(new Error(), 'stack', { get() { for (;;) {} } });", "Error"),
        ("throw new Error('x'.repeat(1e5));", "Error: …"),
        ("Atomics.wait();", "ReferenceError: Atomics is not defined"),
        ("throw new Error('no name of ' + data.email);", "Error: no name of <email>"),
        ("throw 'no name';", "no name"),
        ("throw null;", "it takes more than 64"),
        ("return { a: NaN };", "TypeError: the template returned what is no JSON: a is NaN"),
        ("return { a: new Date('x') };", "a is no date"),
        ("return { a: 1n };", "TypeError: BigInt are forbidden in JSON.stringify"),
        ("const o = {}; o.o = o; return o;", "TypeError: circular reference"),
        ("return () => 1;", "TypeError: the template returned a function"),
        ("return Promise.resolve(1);", "the template returned a promise"),
        ("return import('fs');", "the template returned a promise"),
        (f"return 'x'.repeat({MAX_BODY_BYTES});", "the body has more than 5000000 bytes"),
        ("Object.defineProperty(globalThis, 'x', { value: 1 });", "can't be removed"),
    ],
)
def test_an_event_that_harms_costs_only_itself(rendered, harm, message):
    first, ben, last = rendered(ONLY_BEN.format(harm), *ROWS)

    assert isinstance(ben, TemplateFailed)
    assert message in ben.message
    assert (first, last) == ({"a": "ann@example.com"}, {"a": "cay@example.com"})


LEAVES_A_PROMISE = """
async function helper(text) { await 1; return text; }
function template(data) { helper(data.large + data.n); return { n: data.n }; }
"""


def test_promises_of_events_that_nobody_awaits_make_no_later_event_fail(loaded):
    renderer, template = loaded(LEAVES_A_PROMISE)

    for number in range(20):
        [result] = renderer.render(template, [row_of(n=number, large="x" * 4_000_000)])
        assert isinstance(result, Rendered)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return data.a.b", "TypeError: cannot read property 'b' of undefined"),
        ("return sha256(data.none)", "TypeError: sha256 of a value that is missing"),
        ("BigInt(1.5)", "RangeError: cannot convert to BigInt: not an integer"),
        ("'use strict'; undefined.x = 1", "TypeError: cannot set property 'x' of undefined"),
        ("JSON.parse(data.name)", "SyntaxError: unexpected token: '…'"),
        ("throw new Error(data.name + ' is wrong')", "Error: … is wrong"),
    ],
)
def test_an_error_has_its_line_in_the_template_and_nothing_of_data_or_comments(
    rendered, code, message
):
    source = f"// Ask Zoe.\nfunction template(data) {{\n  {code};\n}}"

    [failed] = rendered(source, row_of(name="Zoe"))

    assert (failed.message, failed.file, failed.line) == (message, "t.js", 3)


@pytest.mark.parametrize("nothing", ["return;", "return null;", "return undefined;", ""])
def test_an_event_for_which_nothing_is_returned_is_skipped(rendered, nothing):
    assert rendered(f"function template(data) {{ {nothing} }}") == [Asserted(NOTHING_RETURNED)]


@pytest.mark.parametrize(
    ("before", "body"),
    [
        ("let seen = 0;", "return ++seen;"),
        ("seen = 0;", "return ++seen;"),
        ("const seen = [];", "return seen.push(1);"),
        ("", "globalThis.seen = (globalThis.seen || 0) + 1; return seen;"),
        ("", "Object.prototype.seen = 1; return {}.seen ? 2 : 1;"),
        ("", "if (typeof x == 'number') return 2; globalThis.__proto__ = { x: 1 }; return 1;"),
        ("", "data.__proto__.seen = 1; return {}.seen ? 2 : 1;"),
        ("const f = function* () {};", "f.prototype.__proto__.seen = 1; return f().seen ? 2 : 1;"),
        ("", "JSON.parse = () => ({}); return JSON.parse('1');"),
        ("", "get = () => 5; return get === globalThis.get ? 1 : 2;"),
        ("", "get.seen = (get.seen || 0) + 1; return get.seen || 1;"),
        ("", "jobConfGet('list').push(1); return jobConfGet('list').length - 1;"),
        ("", "if (Error.prepareStackTrace) return 2; Error.prepareStackTrace = get; return 1;"),
        ("String.prototype.kept = [];", "return 'kept' in String.prototype ? 2 : 1;"),
        ("", "Math.seen = (Math.seen || 0) + 1; return Math.seen || 1;"),
        ("", "Promise.resolve().then(() => { x = 2; }); return typeof x === 'number' ? 2 : 1;"),
    ],
)
def test_an_event_leaves_nothing_to_the_next(rendered, before, body):
    source = f"{before} function template(data) {{ {body} }}"

    assert rendered(source, *[row_of({"list": [1]})] * 3) == [1, 1, 1]


ORDINARY = """
class NoEmail extends Error {}
function template(data) {
  const error = new NoEmail("no"); error.name = "NoEmail"; error.message = "none";
  const made = {}; made.toString = () => "text"; made.constructor = 1;
  for (i = 0; i < 2; i++) {}
  return [String(error), String(made), made.constructor, i];
}"""
HALVES = 'function template(data) { return ["\\ud83d", "\\ude00x", "😀", "\\\\ud83d", "\\u0007"]; }'
LOGS = "function template(data) { console.log(data); return data.email; }"


@pytest.mark.parametrize(
    ("source", "bodies"),
    [
        ("function template(data) { return 1; }", [1, 1]),
        ("const template = (data) => 1;", [1, 1]),
        ("var template = function (data) { return 1; };", [1, 1]),
        ("template = (data) => 1", [1, 1]),
        ("'use strict';\nfunction template(data) { return 1; } // an end", [1, 1]),
        ("function template(data) { return jobConfGet('a', 0); }", [1, 0]),
        (LOGS, ["ann@example.com"] * 2),
        (ORDINARY, [["NoEmail: none", "text", 1, 2]] * 2),
        # Half a character becomes the sign for what is none.
        (HALVES, [["\ufffd", "\ufffdx", "😀", "\\ud83d", "\x07"]] * 2),
    ],
)
def test_a_template_may_be_defined_in_any_way_and_do_what_is_ordinary(rendered, source, bodies):
    assert rendered(source, row_of({"a": 1}), row_of()) == bodies


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("function template(data) {\n  retrun 1;\n}", "t.js:2:10: SyntaxError: expecting ';'."),
        ("function tmplate() {}", "t.js: defines no function `template`"),
        ("const template = 1;", "t.js: defines no function `template`"),
        ("function template() {} // \0", "t.js: holds a zero byte"),
        ("import { a } from 'a';\nfunction template() {}", "Modules are not supported"),
        ("const a = require('a');\nfunction template() {}", "Modules are not supported"),
        ("await 1;\nfunction template() {}", "Modules are not supported"),
        ("boom();", "t.js:1:1: ReferenceError: boom is not defined."),
        ("while (true) {}", "t.js: it takes too much time."),
        ("} function template() {", "t.js:1:1: SyntaxError"),
        ("local event = import 'lytemplates.libsonnet';", "This looks like Jsonnet"),
    ],
)
def test_a_template_that_does_not_load_is_refused_with_its_place(rendered, source, message):
    with pytest.raises(TemplateBroken) as caught:
        rendered(source)

    assert message in caught.value.message


def test_a_whole_number_above_2_to_the_53_is_rounded_and_a_text_is_not(rendered):
    row = Row(b'{"a": 9007199254740993, "b": "9007199254740993", "segment_events": [{}]}')

    assert rendered("function template(data) { return data; }", row)[0] | {"segment_events": 0} == {
        "a": 9007199254740992,
        "b": "9007199254740993",
        "segment_events": 0,
    }


def test_a_field_of_any_name_is_only_a_field(rendered):
    row = Row(b'{"__proto__": {"email": "x"}, "constructor": 1, "segment_events": [{}]}')

    [body] = rendered("function template(data) { return { d: data, e: data.email || 0 }; }", row)

    assert body["e"] == 0
    assert body["d"]["__proto__"] == {"email": "x"}


def test_a_profile_that_does_not_parse_costs_only_its_event(rendered):
    bad = [Row(b"{"), Row(b"[" * 100_000), Row(b'"' + b"\x1e" + b'"')]

    results = rendered("function template(data) { return 1; }", *bad, row_of())

    assert [type(each) for each in results] == [*[TemplateFailed] * 3, int]


def test_a_fork_of_a_process_that_has_rendered_renders(loaded):
    renderer, template = loaded("function template(data) { return data.email; }")
    before = renderer.render(template, [row_of()])

    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        [result] = renderer.render(template, [row_of()])
        os.write(writing, result.body)
        os._exit(0)
    os.close(writing)

    assert [Rendered(os.read(reading, 100))] == before
    assert os.waitpid(child, 0)[1] == 0


def test_without_the_engine_the_command_that_installs_it_is_named(tmp_path):
    (tmp_path / "t.js").write_text("function template(data) { return 1; }")
    script = (
        "import sys; sys.modules['quickjs'] = None\n"
        "from pathlib import Path\n"
        "from segrelay.jsonnet.renderer import Renderer\n"
        "from segrelay.templates import LYTEMPLATES\n"
        f"Renderer(Path({str(tmp_path)!r}), LYTEMPLATES).load('t.js')"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    said = "t.js: is JavaScript, and QuickJS, which renders it, is not installed: pip install"
    assert said in ended.stderr


def test_templates_of_both_languages_are_rendered_into_one_object(tmp_path):
    (tmp_path / "body.js").write_text(
        "function template(data) { return data.skip ? null : { email: data.email }; }"
    )
    (tmp_path / "url.jsonnet").write_text(
        "local event = import 'lytemplates.libsonnet';\n'/people/' + event.get('email')"
    )
    name = '{"body": "body.js", "url": "url.jsonnet", "headers": {"X-A": "url.jsonnet"}}'
    renderer = Renderer(tmp_path, LYTEMPLATES)
    template = renderer.load(name)
    rows = [row_of(), row_of(skip=True), row_of(email=["a"])]

    body, skipped, other = renderer.render(template, rows)

    assert body == Rendered(
        b'{"body":{"email":"ann@example.com"},"url":"/people/ann@example.com",'
        b'"headers":{"X-A":"/people/ann@example.com"}}'
    )
    assert skipped == Asserted(NOTHING_RETURNED)
    assert isinstance(other, Rendered)
    bundle = renderer.bundle_of(template)
    isolated = render_isolated(bundle, rows[:2], seconds=20, memory_bytes=1_000_000_000)
    assert isolated == [body, skipped]
    assert [renderer.render_safely(template, row) for row in rows] == [body, None, other]


@pytest.mark.parametrize(
    "body", ["return data.n ? data.none.x : 1;", "while (data.n) {} return 1;"]
)
def test_only_what_simply_renders_is_rendered_safely(loaded, body):
    renderer, template = loaded(f"function template(data) {{ {body} }}")

    safe = [renderer.render_safely(template, row) for row in (row_of(), row_of(n=1), row_of())]
    assert safe == [Rendered(b"1"), None, Rendered(b"1")]

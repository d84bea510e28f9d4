"""The compiled form alone: the semantics that bite, what it hands on, and what ends an event."""

import time

import pytest

from segrelay.jsonnet.compiled import AssertFailed, Compiled, Exhausted, NotCompiled

EVENT = "local event = import 'lytemplates.libsonnet';\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("assert false : 'no email'; {}", "no email"),
        ("assert true; assert 1 > 2 : 'a' + 1; {}", "a1"),
        ("local x = 1; if true then (assert false : 'in a branch'; 1) else 2", "in a branch"),
        ("assert false; 1", "null"),
        ("local e = error 'later'; assert false : 'first'; e", "first"),
        # One inside of an expression does so if nothing else fails.
        ("[assert false : 'inner'; 1]", "inner"),
        ("local f(x) = (assert std.isString(x) : 'inner'; x + 'y'); { a: f(1), b: f(2) }", "inner"),
        ("{ a: [x for x in [1, 2] if (assert x < 2 : 'inner'; true)] }", "inner"),
    ],
)
def test_an_assert_that_fails_ends_the_event_with_its_message(evaluate, source, message):
    with pytest.raises(AssertFailed) as caught:
        evaluate(source)

    assert caught.value.message == message


@pytest.mark.parametrize(
    "source",
    [
        "local f(x) = f(x + 1) + 1; f(1)",
        "local a = a; a",
        "local a = [a]; a",
        "local a = { b: a }; a",
        "{ a: self.b, b: self.a }",
        "local f(n) = if n == 0 then 0 else f(n - 1) + f(n - 1); f(60)",
        "std.length([0 for a in std.range(1, 5000) for b in std.range(1, 5000)])",
        "std.length(std.range(1, 1e12))",
        "std.repeat('a', 1e12)",
        "std.repeat([1], 1e9)",
        "'%999999999d' % 1",
        "'%9999999999999d' % 1",
        "'%.9999999999f' % 1",
        "local f(s, n) = if n == 0 then s else f(s + s, n - 1); std.length(f('a', 60))",
        "local f(s, n) = if n == 0 then s else f(s + s, n - 1); std.length(f([1], 60))",
        "std.strReplace(std.repeat('a', 1e6), 'a', std.repeat('b', 1e6))",
        "local f(x) = std.map(f, [x])[0]; f(1)",
        "local o = { m(x): self.m(x) }; o.m(1)",
        'local f(x) = g("a"), g(x) = f("b"); f("c")',
    ],
)
def test_what_does_not_end_ends_the_event_in_time(evaluate, source):
    started = time.process_time()

    with pytest.raises(Exhausted):
        evaluate(source)

    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "helper",
    [
        "{ a: -(assert false : 'inner'; 1), b: 2 }",
        "local check(x) = (assert x < 1 : 'inner'; x); { a: check(1), b: 2 }",
    ],
)
def test_an_assert_of_an_imported_file_fails_each_event_that_meets_it(compile_text, helper):
    text = EVENT + "local h = import 'h'; if event.has('x') then std.toString(h) + h.a else 1"
    through = EVENT + "if event.has('x') then import 'through' else 1"
    for template in (
        compile_text(text, {"h": helper}),
        compile_text(through, {"h": helper, "through": "std.toString((import 'h') + { d: 1 })"}),
    ):
        for _ in range(3):
            with pytest.raises(AssertFailed, match="inner"):
                template.render({"x": 1}, {})
        assert template.render({}, {}) == 1


def test_an_assert_that_jsonnet_never_meets_fails_nothing(evaluate):
    lazy = "local a = (assert false : 'inner'; true); if event.has('x') then a else 1"
    assert evaluate(EVENT + lazy) == 1
    assert evaluate("std.any([x || (assert false; x) for x in [true, false]])") is True
    assert evaluate("std.length([(assert false; 1)])") == 1
    assert evaluate("std.member([1, error 'no'], 1)") is True


def test_recursion_that_rjsonnet_manages_is_managed(evaluate):
    source = "local f(n, a) = if n == 0 then a else f(n - 1, a + n); f(498, 0)"

    assert evaluate(source) == 498 * 499 / 2


def test_a_recursion_whose_error_python_has_lost_ends_the_event():
    def recurs(_profile, _settings):
        raise SystemError("error return without exception set")

    with pytest.raises(Exhausted, match="endless recursion"):
        Compiled("", recurs).render({}, {})


def test_an_event_that_fails_leaves_nothing_behind(compile_text):
    template = compile_text(
        EVENT + "local t = import 'h'; t[event.get('key')]",
        {"h": "local big = std.range(1, 2e6)[0]; { big: big, small: 1 }"},
    )

    for _ in range(3):
        with pytest.raises(Exhausted):
            template.render({"key": "big"}, {})
    assert template.render({"key": "small"}, {}) == 1


@pytest.mark.parametrize(
    ("source", "what", "location"),
    [
        ("local f(x) = if x > 9 then x else\nf(x + 1) tailstrict; f(1)", "tailstrict", (2, 2)),
        ("[std]", "std as a value", (1, 2)),
    ],
)
def test_what_is_not_compiled_is_named_with_its_place(compile_text, source, what, location):
    refused = compile_text(source, {"h": ""})

    assert isinstance(refused, NotCompiled)
    assert what in refused.what
    assert (refused.file, refused.line, refused.column) == ("templates:/t.jsonnet", *location)


HOSTILE = [
    "__import__", "render", "row", "take", "Lazy", "lambda", "None", "exec", "x1", "v1", "k1",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_word_of_a_template_stands_in_the_code(evaluate, name):
    source = (
        f"local {name} = 1; local f({name}) = {name} + 1; local o = {{ {name}: self.z, z: 2 }};"
        f"[{name}, f({name}={name}), (function({name}) {name})({name}=5), o.{name},"
        f" [{name} for {name} in [7]][0], '{name}\\n\"\\'{{}}']"
    )

    assert evaluate(source) == [1, 2, 5, 2, 7, f"{name}\n\"'{{}}"]


def test_strings_stand_in_the_code_as_constants_only(evaluate):
    text = "'); import os; os.abort() #\n\\"
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")

    assert evaluate(f"{{ '{quoted}': '{quoted}' }}") == {text: text}
    assert evaluate(r"'a\u0000b'[1] == '\u0000'") is True


def test_body_and_profile_share_no_container(evaluate):
    profile = {"a": [{"b": [1]}], "segment_events": [{"slug": "vip"}]}
    body = evaluate(
        EVENT + "local x = event.get('a'); { a: x, b: [x[0]], c: event.get('segment_events'),"
        " d: x + [], e: { f: 1 } + x[0], g: [y for y in x] }",
        profile,
    )
    body["a"][0]["b"].append(2)
    body["b"][0]["b"].append(2)
    body["c"][0]["slug"] = "other"
    body["e"]["b"].append(2)
    body["g"][0]["b"].append(2)

    assert profile == {"a": [{"b": [1]}], "segment_events": [{"slug": "vip"}]}
    assert body["d"] == [{"b": [1]}]


def test_constants_of_a_template_are_new_for_each_event(compile_text):
    template = compile_text("local table = { a: [1] }; { x: table, y: table, z: [[2]] }")

    template.render({}, {})["x"]["a"].append(2)

    assert template.render({}, {}) == {"x": {"a": [1]}, "y": {"a": [1]}, "z": [[2]]}


@pytest.mark.parametrize(
    ("given", "printed"), [(3.0, 3), (2**60, 1152921504606847000), (1.5, 1.5), (2**53, 2**53)]
)
def test_a_profiles_numbers_are_doubles(evaluate, given, printed):
    assert evaluate(EVENT + "event.get('n')", {"n": given}) == printed
    assert evaluate(EVENT + "event.get('n') == event.get('n') + 0", {"n": given}) is True


def test_a_long_template_is_compiled_or_named(compile_text):
    chain = (
        EVENT + "".join(f"if event.get('a') == {n} then 'v{n}' else " for n in range(120)) + "''"
    )
    sums = " + ".join(["'x'"] * 600)

    assert isinstance(compile_text(chain), Compiled)
    assert compile_text(sums).render({}, {}) == "x" * 600
    assert isinstance(compile_text("[" * 150 + "]" * 150), Compiled | NotCompiled)

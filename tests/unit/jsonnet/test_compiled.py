"""The compiled form alone: the semantics that bite, what it hands on, and what ends an event."""

import time

import pytest

from segrelay.jsonnet.compiled import AssertFailed, Compiled, Exhausted, NotCompiled

EVENT = "local event = import 'lytemplates.libsonnet';\n"

SEMANTICS = {
    # Laziness.
    "local x = error 'no'; 1": 1,
    "local f(x) = 1; f(error 'no')": 1,
    "[1, error 'no'][0]": 1,
    "{ a: 1, b: error 'no' }.a": 1,
    "std.length([error 'no', error 'no'])": 2,
    "std.map(function(x) error 'no', [1, 2]) == []": False,
    "std.length(std.map(function(x) error 'no', [1, 2]))": 2,
    "[1, error 'no'] == [2, error 'no']": False,
    "std.member([1, error 'no'], 1)": True,
    "true || error 'no'": True,
    "std.all([false, error 'no'])": False,
    "local f(x) = f(x); std.any([if x == 1 then true else f(x) for x in [1, 2]])": True,
    "false && error 'no'": False,
    "std.trace('x', 1)": 1,
    "std.length([std.trace('x', error 'no')])": 1,
    "local f = std.trace; f(rest=2, str='x')": 2,
    "local a = b, b = 1; a": 1,
    "local f(x, y=x) = y; f(2)": 2,
    "local f(x=y, y=3) = x; f()": 3,
    "std.get({}, 'a', 1) == std.get({ a: error 'no' }, 'b', 1)": True,
    "{ [if false then 'a']: error 'no' }": {},
    # A strict call, files of bytes, names that are computed, objects of a comprehension.
    "local f(x) = 1; f(2) tailstrict": 1,
    "std.length([error 'no']) tailstrict": 1,
    "std.get({ a: 1 }, 'a', 2) tailstrict": 1,
    "local o = { f(x): x }; o.f(3) tailstrict": 3,
    "{ a: 1 } + { ['a']+: 2 }": {"a": 3},
    "{ a: { x: 1 } } + { ['' + 'a']+: { y: 2 }, [null]+: error 'no', ['b']+: 1 }": {
        "a": {"x": 1, "y": 2},
        "b": 1,
    },
    "[{ [k]: 1 } + { [k + '']+: n } for k in ['a', 'b'] for n in [2]]": [{"a": 3}, {"b": 3}],
    "local f(k) = { [k]: 1 } + { [k + '']+: 2 }; [f('a'), f('b')]": [{"a": 3}, {"b": 3}],
    "{ [k]: if k == 'a' then 1 else self.a + 1 for k in ['a', 'b'] }": {"a": 1, "b": 2},
    "{ ['x' + k]: $.x2 + k for k in [2] } + { x2: 'y' }": {"x2": "y"},
    "{ ['x' + k]: if k == 1 then $.x2 else k for k in [1, 2] }": {"x1": 2, "x2": 2},
    "{ a: 1, b: 1 } + { [k]: super[k] + 1 for k in ['a'] }": {"a": 2, "b": 1},
    "{ o: { [k]: $.n for k in ['a'] }, n: 5 }": {"n": 5, "o": {"a": 5}},
    "{ local v = k + self.n, [k]: if k == 'n' then 'm' else v for k in ['n', 'a'] }": {
        "n": "m",
        "a": "am",
    },
    "{ [if k > 1 then 'a' + k]: std.length(self) for k in [1, 2, 3] }": {"a2": 2, "a3": 2},
    "local o = { a: o.b, b: 2 }; o.a": 2,
    # Numbers.
    "1 + 0.5": 1.5,
    "4 / 2": 2,
    "9007199254740993": 9007199254740992,
    "9007199254740993 == 9007199254740992": True,
    "7 % 3": 1,
    "-7 % 3": -1,
    "'' + 4 / 2": "2",
    "'' + -0": "-0",
    "std.toString(0 * -1)": "-0",
    "std.toString(std.abs(0))": "-0",
    "std.ceil(-0.5) + ''": "-0",
    "1e3 + ''": "1000",
    # Equality and order.
    "1 == true": False,
    "0 == false": False,
    "[1] == [true]": False,
    "'1' == 1": False,
    "null == false": False,
    "{ a: [1, { b: 2 }] } == { a: [1, { b: 2.0 }] }": True,
    "{ a: 1, h:: 2 } == { a: 1 }": True,
    "'a' < 'B'": False,
    "'￿' < '😀'": True,
    # Strings.
    "std.length('😀')": 1,
    "'añb'[1]": "ñ",
    "std.asciiUpper('aßé')": "Aßé",
    "'a\\u0000b'[1] == '\\u0000'": True,
    "std.split('a,b,', ',')": ["a", "b", ""],
    "'%s-%05d-%-3s|%c%%' % ['x', -42, 'y', 'z']": "x--0042-y  |z%",
    "'%(a)s' % { a: [1, 'x', null] }": '[1, "x", null]',
    "std.join(', ', ['a', null, 'b'])": "a, b",
    "'x' + { a: [], b: {} }": 'x{"a": [ ], "b": { }}',
    # Objects.
    "{ b: 1, a: 2 }": {"a": 2, "b": 1},
    "{ a: 1, b: self.a } + { a: 5 }": {"a": 5, "b": 5},
    "{ a: { x: 1 } } + { a+: { y: 2 } }": {"a": {"x": 1, "y": 2}},
    "{ a+: { y: 2 } }": {"a": {"y": 2}},
    "{ a: 1 } + { a: super.a + 1 } + { a: super.a + 1 }": {"a": 3},
    "{ a:: 1 } + { a: 2 }": {},
    "{ a:: 1 } + { a::: 2 }": {"a": 2},
    "{ a: 1 } + { a:: 2 }": {},
    "{ a: 1, b: { c: $.a } }": {"a": 1, "b": {"c": 1}},
    "{ local x = self.a, a: 1, b: x } + { a: 2 }": {"a": 2, "b": 2},
    "({ a: 'b' in super } { a: 'a' in super }).a": True,
    "{ [k + '!']: v for k in ['a', 'b'] for v in [1] }": {"a!": 1, "b!": 1},
    "std.objectFields({ b: 1, a: 2, h:: 3 })": ["a", "b"],
    "local o = { f(x): x + self.n, n:: 2 }; o.f(1)": 3,
    "std.prune({ a: null, b: [], c: { d: null }, e: [null, 0] })": {"e": [0]},
    # Functions and loops.
    "local f(n) = if n == 0 then 0 else n + f(n - 1); f(20)": 210,
    "local even(n) = n == 0 || odd(n - 1), odd(n) = n != 0 && even(n - 1); even(9)": False,
    "(function(x, y=2) x + y)(y=1, x=5)": 6,
    "local fs = [function() x for x in [1, 2, 3]]; [f() for f in fs]": [1, 2, 3],
    "[x * y for x in [1, 2] if x > 1 for y in [3, 4]]": [6, 8],
    "std.foldl(function(a, b) a + b, ['b', 'c'], 'a')": "abc",
    "std.map(std.length, ['a', [1, 2], {}])": [1, 2, 0],
    "std.sort([3, 1, 2], function(x) -x)": [3, 2, 1],
    "std.set(['b', 'a', 'b'])": ["a", "b"],
    "local std = { length(x): 'mine' }; std.length('')": "mine",
    "[1, 2, 3, 4][1:4:2]": [2, 4],
    "|||\n  a %s\n||| % 1": "a 1\n",
}


@pytest.mark.parametrize("source", SEMANTICS)
def test_it_means_what_jsonnet_means(evaluate, source):
    value = evaluate(source)

    assert value == SEMANTICS[source]
    assert type(value) is type(SEMANTICS[source])


def test_importbin_gives_the_bytes_of_a_file(evaluate):
    assert evaluate("importbin 'h'", helpers={"h": "añ\r\n"}) == list("añ\r\n".encode())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("assert false : 'no email'; {}", "no email"),
        ("assert true; assert 1 > 2 : 'a' + 1; {}", "a1"),
        ("local x = 1; if true then (assert false : 'in a branch'; 1) else 2", "in a branch"),
        ("assert false; 1", "null"),
        ("local e = error 'later'; assert false : 'first'; e", "first"),
    ],
)
def test_an_assert_that_fails_first_of_all_skips_the_event(evaluate, source, message):
    with pytest.raises(AssertFailed) as caught:
        evaluate(source)

    assert caught.value.message == message


@pytest.mark.parametrize(
    "source",
    [
        "local f(x) = f(x + 1) + 1; f(1)",
        "local f(x) = f(x); f(1)",
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
        "'%(a)-9999999999s' % { a: 1 }",
        "'%.9999999999f' % 1",
        "local f(s, n) = if n == 0 then s else f(s + s, n - 1); std.length(f('a', 60))",
        "local f(s, n) = if n == 0 then s else f(s + s, n - 1); std.length(f([1], 60))",
        "std.makeArray(1e10, function(x) x)",
        "std.strReplace(std.repeat('a', 1e6), 'a', std.repeat('b', 1e6))",
        "local f(x) = std.map(f, [x])[0]; f(1)",
        "local o = { m(x): self.m(x) }; o.m(1)",
    ],
)
def test_what_does_not_end_ends_the_event_in_time(evaluate, source):
    started = time.process_time()

    with pytest.raises(Exhausted):
        evaluate(source)

    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "source",
    [
        "[assert false : 'inner'; 1]",
        "{ a: (assert false : 'inner'; 1) }",
        "local f(x) = (assert std.isString(x) : 'inner'; x + 'y'); { a: f(1), b: f(2) }",
        "{ a: [x for x in [1, 2] if (assert x < 2 : 'inner'; true)] }",
    ],
)
def test_an_assert_inside_of_an_expression_fails_the_event_if_nothing_else_does(evaluate, source):
    with pytest.raises(AssertFailed) as failed:
        evaluate(source)

    assert failed.value.message == "inner"


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
    assert evaluate("std.find((assert false; 1), [])") == []


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


def test_a_function_that_is_called_with_constants_has_its_body_in_the_place_of_the_call(
    compile_text,
):
    template = compile_text(
        EVENT
        + "local of(field) = local x = event.get(field); if std.isNumber(x) then x + 1 else x;\n"
        + "[of('a'), of('b'), of('c')]"
    )

    assert template.source.count("get('") == 3
    assert template.render({"a": 1, "b": "t"}, {}) == [2, "t", None]


def test_functions_that_call_each_other_with_constants_end_as_those_that_call_themselves(
    compile_text,
):
    template = compile_text('local f(x) = g("a"), g(x) = f("b"); f("c")')

    with pytest.raises(Exhausted):
        template.render({}, {})


def test_what_a_file_writes_out_is_made_anew_wherever_it_is_told(compile_text):
    helper = EVENT + "{ a: { x: [event.get('n'), { y: std.length(event.get('t')) }] } }"
    template = compile_text(
        "local h = import 'h'; { one: h.a, two: h.a, n: h.a.x[0] }", {"h": helper}
    )

    body = template.render({"n": 2, "t": "abc"}, {})

    assert body == {"one": {"x": [2, {"y": 3}]}, "two": {"x": [2, {"y": 3}]}, "n": 2}
    assert body["one"]["x"] is not body["two"]["x"]
    assert "manifest(x" not in template.source


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


def test_a_template_that_is_loaded_again_is_not_compiled_again(compile_text):
    first, second = compile_text("local x = 1; x + 1"), compile_text("local x = 1; x + 1")

    assert second.source is first.source
    assert second.run is not first.run
    assert compile_text("local x = 1; x + 2").source != first.source
    assert compile_text("import 'h'", {"h": "1"}).render({}, {}) == 1
    assert compile_text("import 'h'", {"h": "2"}).render({}, {}) == 2

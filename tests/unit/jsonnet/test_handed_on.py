"""Events that the compiled form is not sure of, and hands on to Jsonnet."""

import pytest

from segrelay.jsonnet.compiled.running.limits import Doubtful
from tests.unit.jsonnet.test_compiled import EVENT

HANDED_ON = [
    "'%5s' % 'é'",
    "'%s' % []",
    "'\x7f' + {a: '\x7f'}",
    "1e308 * 10",
    "if 1 then 2",
    "!1",
    "std.length(true)",
    "std.sort([1, 'a'])",
    "(function(x) x) == (function(x) x)",
    "{ f(x): x }",
    "(function(x) x)()",
    "-0",
    "1e-7",
    "(function(x) x)(y=1)",
    "{ ['a']: 1, ['a']: 2 }",
    "{ [1]: 2 }",
    "'a' in 'abc'",
    "std.join(0.25, [])",
    "std.filter(1, [])",
    "std.flatMap(1, [])",
    "std.foldl(1, [], 0)",
    "std.sort([], 1)",
    "std.maxArray([1])",
    "std.objectRemoveKey({}, 1)",
    "std.lstripChars('a', false)",
    "'%x' % 1",
    "[(assert false : 'one'; 1), 1 + true]",
    "local f(n) = (assert n > 0 : 'deep'; f(n - 1)); f(3)",
    "local a = (assert false : 'inner'; 1); assert a + a == 3 : 'outer'; 1",
    "(assert false : 1; 1) + 1",
    "local o = { assert self.a == 1, a: 1 }; o { a: 2 }",
    "({ assert self.a == 2, a: 1 }).a",
    "({ assert false, a:: 1 })",
    "'%(a)*d' % { a: 1 }",
    "std.extVar('x')",
    "[std.nobody][0]",
    "std.objectHasEx({ a:: 1 }, 'a', true)",
]


@pytest.mark.parametrize("source", HANDED_ON)
def test_what_it_is_not_sure_of_it_hands_on(evaluate, source):
    """By kind of doubt; `fails_…` and `LEFT` of test_snippets.py have more."""
    with pytest.raises(Doubtful):
        evaluate(source)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("std.base64Decode('w6k=')", "std.base64Decode"),
        ("std.map(1, [])", "std.map"),
        ("std.nobody(1)", "std.nobody"),
        (
            "[(assert false : event.get('key'); 1), (assert false; 1)]",
            "an assert that fails inside of an expression",
        ),
        ("error event.get('key')", "an `error` of the template"),
        ("'%.30f' % event.get('five')", "a format (%)"),
        ("'%d' % event.get('key')", "a value of another kind than expected"),
        ("event.get('map').absent", "a field that an object does not have"),
        ("[1][event.get('five')]", "an element that an array does not have"),
        ("1 + event.get('map')", "a value of another kind than expected"),
        ("1 / event.get('zero')", "a division by zero"),
    ],
)
def test_an_event_that_is_handed_on_says_why_without_its_data(compile_text, source, why):
    template = compile_text(EVENT + source)

    with pytest.raises(Doubtful) as doubt:
        template.render({"key": "ann@example.com", "map": {}, "five": 5, "zero": 0}, {})

    assert doubt.value.why == why


def test_a_function_that_is_not_compiled_costs_only_the_events_that_call_it(compile_text):
    template = compile_text(
        EVENT + "if event.has('odd') then std.exp(event.get('odd')) else 'even'"
    )

    assert template.render({}, {}) == "even"
    with pytest.raises(Doubtful):
        template.render({"odd": 3}, {})


def test_a_profile_that_is_none_is_handed_on(compile_text):
    with pytest.raises(Doubtful):
        compile_text(EVENT + "event.get('a')").render([], {})


def test_a_signals_exception_is_nobodys_doubt(compile_text):
    class Interrupt(Exception):  # noqa: N818 - as a signal's handler may raise
        pass

    class Interrupting(dict):
        def get(self, *_):
            raise Interrupt

    with pytest.raises(Interrupt):
        compile_text(EVENT + "event.get('a')").render(Interrupting(), {})

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.parser import MAX_DEPTH, parse
from segrelay.jsonnet.syntax.tokens import SyntaxWrong, location


def _shape(node):
    """A node without its places, as nested tuples."""
    if isinstance(node, tuple):
        return tuple(_shape(each) for each in node)
    if not hasattr(node, "__slots__"):
        return node
    names = [
        name for kind in reversed(type(node).__mro__) for name in getattr(kind, "__slots__", ())
    ]
    return (type(node).__name__, *(_shape(getattr(node, name)) for name in names if name != "at"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("a || b && c", "a || (b && c)"),
        ("!a == b", "(!a) == b"),
        ("-a.b", "-(a.b)"),
        ("a < b == c < d", "(a < b) == (c < d)"),
        ("a in b == c", "(a in b) == c"),
        ("a & b == c", "a & (b == c)"),
        ("a | b ^ c & d", "a | (b ^ (c & d))"),
        ("1 + if a then b else c + d", "1 + (if a then b else (c + d))"),
        ("if a then b else if c then d", "if a then b else (if c then d)"),
        ("local x = 1; x + local y = 2; y", "local x = 1; x + (local y = 2; y)"),
        ("a { b: 1 }", "a + { b: 1 }"),
        ("f(x,)", "f(x)"),
        ("[a, b,]", "[a, b]"),
        ("{ a: 1, }", "{ 'a': 1 }"),
        ("{ f(x): x }", "{ f: function(x) x }"),
        ("local f(x) = x; f", "local f = function(x) x; f"),
        ("a[1:2]", "a[1:2:]"),
        ("a[::2]", "a[: :2]"),
        ("a.b", "a['b']"),
        ("x==-1", "x == -1"),
        ("@'it''s'", '"it\'s"'),
        ("'\\u00e9\\ud83d\\ude00'", "'é😀'"),
        ("|||\n  a\n   b\n\n  c\n|||", "'a\\n b\\n\\nc\\n'"),
        ("|||-\n\ta\n|||", "'a'"),
        ("# one\na /* two */ // three", "a"),
        ("1_000.5e1_0", "1000.5e10"),
    ],
)
def test_both_ways_of_writing_mean_the_same(one, other):
    assert _shape(parse(one)) == _shape(parse(other))


@pytest.mark.parametrize(
    ("source", "at", "words"),
    [
        ("[1, importbin 'x']", (1, 5), "importbin is not supported"),
        ("", (1, 1), "the file ends"),
        ("{\n  a: 1\n  b: 2 }", (3, 3), 'expected "," or "}", but found b'),
        ("{ a 1 }", (1, 5), '":" behind the name'),
        ("local = 1; 2", (1, 7), "name of a variable"),
        ("local x = 1\nx", (2, 1), '"," or ";"'),
        ("if a b", (1, 6), '"then"'),
        ("'open", (1, 1), "unterminated"),
        ("|||\nnot indented\n|||", (1, 1), "unterminated"),
        ("'a\\q'", (1, 3), '"\\q" is no escape'),
        ("'\\u12'", (1, 2), "no escape"),
        ("01", (1, 1), "not how a number is written"),
        ("f(a=1, 2)", (1, 8), "without a name"),
        ("f(a=1, a=2)", (1, 8), "twice"),
        ("function(x, x) 1", (1, 13), "twice"),
        ("{ a: 1, 'a': 2 }", (1, 9), "twice"),
        ("{ a: 1 for x in [] }", (1, 8), 'object with "for"'),
        ("super", (1, 6), "behind super"),
        ("a[]", (1, 2), "index is missing"),
        ("a[1:2:3:4]", (1, 8), '":" or "]"'),
        ("import x", (1, 8), "a string"),
        ('{\n"users":\\[1] }', (2, 9), "found \\"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), (1, MAX_DEPTH + 1), "nested deeper"),
        ("!" * 5_000 + "true", (1, MAX_DEPTH + 1), "nested deeper"),
    ],
)
def test_the_first_mistake_is_named_with_its_place(source, at, words):
    with pytest.raises(SyntaxWrong) as caught:
        parse(source)

    assert words in caught.value.message
    assert location(source, caught.value.at) == at


@pytest.mark.parametrize(
    ("source", "at", "words"),
    [
        ("{ a: nobody }", 5, "unknown variable: nobody"),
        ("local x = 1, x = 2; x", 13, "twice"),
        ("self.a", 0, "self"),
        ("{ [$.a]: 1 }", 3, "$"),
        ("[x for y in [1]]", 1, "unknown variable: x"),
        ("{ local x = 1, [x]: 2 }", 16, "unknown variable: x"),
        ("function(a=b, b=1) c", 19, "unknown variable: c"),
    ],
)
def test_a_name_that_means_nothing_is_refused(source, at, words):
    with pytest.raises(SyntaxWrong) as caught:
        tree.check(parse(source))

    assert words in caught.value.message
    assert caught.value.at == at


@pytest.mark.parametrize(
    "source",
    [
        "local f(x) = f(x), g = f; g",
        "{ a: self.b, b: $.a, c: { d: $.a, e: self.d } }",
        "[x + y for x in [1] for y in [x] if y > x]",
        "{ [k]: v + k for k in ['a'] for v in [k] }",
        "{ local x = self.a, a: x, assert x > 0 : 'x' }",
        "function(a=b, b=1) a",
        "{ a: 1 } + { a+: super.a, b: 'a' in super }",
    ],
)
def test_names_are_known_where_the_language_says(source):
    tree.check(parse(source))


def test_long_chains_are_no_nesting():
    many = 1_500

    assert isinstance(parse(" + ".join(["x"] * many)), tree.Binary)
    assert isinstance(parse("".join("if a then b else " for _ in range(many)) + "c"), tree.If)
    assert isinstance(parse("".join(f"local v{n} = {n}; " for n in range(many)) + "v1"), tree.Local)


_WORDS = "local x = 1 ; if then else { a : } [ ] ( ) , for in self . + - ! || 'a' import"


@given(st.lists(st.sampled_from(_WORDS.split())).map(" ".join))
def test_any_text_parses_or_is_refused_with_a_place(source):
    assert 0 <= _wrong_at(source) <= len(source)


def _wrong_at(source):
    try:
        tree.check(parse(source))
    except SyntaxWrong as wrong:
        return wrong.at
    return 0

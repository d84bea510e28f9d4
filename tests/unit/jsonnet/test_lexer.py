import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.jsonnet.syntax import tokens as lexer
from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.parser import parse
from segrelay.jsonnet.syntax.tokens import SyntaxWrong, TokenKind, markdown_damage, refuse_too_deep

_PIECES = st.sampled_from(
    [
        *("import", "importstr", "a", "_1", "1.5e3", "é"),
        *(" ", "\n", "\t", "\r\n", "//", "#", "/*", "*/"),
        *('"', "'", "@", "|||", "||| \n  ", "\\", '"lytemplates.libsonnet"'),
        *("{", "}", "[", "]", ",", ";"),
    ]
)


@given(st.lists(_PIECES).map("".join))
def test_the_tokens_joined_are_the_source(source):
    found = list(lexer.tokens(source))

    assert "".join(token.text for token in found) == source
    assert all(source.startswith(token.text, token.start) for token in found)


@pytest.mark.parametrize(
    "source",
    [
        "'import \"a\"'",
        "@'it''s import \"a\"'",
        '"\\" import \'a\'"',
        "// import 'a'\n1",
        "/* import 'a' */ 1",
        "|||\n  import 'a'\n|||",
        "|||-\n\n  x\n\n  import 'a'\n |||",
        "{ imports: 'a' }",
    ],
)
def test_what_only_looks_like_an_import_is_none(source):
    found = tree.imports(parse(f"[importstr 'b', {source}\n, import 'c']"))

    assert [(one.word, one.path) for one in found] == [("importstr", "b"), ("import", "c")]


@pytest.mark.parametrize("source", ['"open', "'open", '@"open', "/* open", "|||\n  open", "||| x"])
def test_what_never_ends_is_broken(source):
    assert [token.kind for token in lexer.tokens(source)] == [TokenKind.BROKEN]


def test_a_chain_that_kills_the_reference_engine_is_refused():
    with pytest.raises(SyntaxWrong, match="parts"):
        refuse_too_deep(lexer.significant("1" + "+1" * 20_000))


@pytest.mark.parametrize(
    "source",
    [
        "{" + "f: 'a' + 'b',\n" * 3_000 + "}",
        f"'{'[' * 300}' + \"{'{' * 300}\" // {'(' * 300}",
    ],
    ids=["many fields", "brackets in strings and comments"],
)
def test_what_is_neither_a_chain_nor_nested_is_not_too_deep(source):
    refuse_too_deep(lexer.significant(source))


@pytest.mark.parametrize(
    ("source", "damage"),
    [
        ('{"users":\\[1\\]}', (9, "\\[")),
        (r'{a: event.get("\_uid")}', (15, r"\_")),
        (r'{a: "\n\"\u0041"}', None),
        (r"{a: @'\_'}", None),
        ("{a: 1} // \\[", None),
    ],
)
def test_escapes_that_only_markdown_makes_are_named(source, damage):
    assert markdown_damage(lexer.significant(source)) == damage

"""A parser of the whole grammar of Jsonnet by recursive descent; it names the first mistake.

`parse` knows syntax only. Whether each variable is known `tree.check` asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.tokens import (
    KEYWORDS,
    Cursor,
    SyntaxWrong,
    Token,
    TokenKind,
    refuse_twice,
    significant,
)
from segrelay.jsonnet.syntax.tree import room

MAX_DEPTH: Final = 200
"""The largest number of nested expressions; rjsonnet dies of some thousands."""
_POWERS: Final = {
    **dict.fromkeys(("*", "/", "%"), 11),
    **dict.fromkeys(("+", "-"), 10),
    **dict.fromkeys(("<<", ">>"), 9),
    **dict.fromkeys(("<", ">", "<=", ">=", "in"), 8),
    **dict.fromkeys(("==", "!="), 7),
    "&": 6,
    "^": 5,
    "|": 4,
    "&&": 3,
    "||": 2,
}
_UNARY_POWER: Final = 12
_UNARY: Final = frozenset("-+!~")
_NUMBER: Final = re.compile(r"(?:0|[1-9](?:_?\d)*)(?:\.\d(?:_?\d)*)?(?:[eE][+-]?\d(?:_?\d)*)?")
_COLONS: Final = {":", "::", ":::", "+:", "+::", "+:::"}


def parse(source: str, found: Sequence[Token] | None = None) -> tree.Node:
    """Return the tree of a file.

    Raises:
        SyntaxWrong: It is no Jsonnet, or nested too deep.
    """
    tokens = significant(source) if found is None else found
    parser = _Parser(tokens, len(source))
    with room():
        node = parser.expression()
        parser.finish()
    return node


@dataclass(slots=True)
class _Parser(Cursor):
    depth: int = 0

    def expression(self, power: int = 0) -> tree.Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SyntaxWrong(f"expressions are nested deeper than {MAX_DEPTH}", self.at)
        node = self.prefixed(power)
        self.depth -= 1
        return node

    def prefixed(self, power: int) -> tree.Node:
        at, word = self.at, self.text()
        match word:
            case "local":
                return self.local()
            case "if":
                return self.conditional()
            case "function":
                self.position += 1
                return self.function(at)
            case "assert":
                self.position += 1
                check = self.check(at)
                self.expect(";")
                return tree.Assert(at, check, self.expression())
            case "error":
                self.position += 1
                return tree.Error(at, self.expression())
        return self.operators(power)

    def local(self) -> tree.Node:
        """Parse consecutive locals in a loop: templates begin with dozens of them."""
        found: list[tuple[int, tuple[tree.Bind, ...]]] = []
        while self.text() == "local":
            at = self.at
            self.position += 1
            found.append((at, self.binds()))
        body = self.expression()
        for at, binds in reversed(found):
            body = tree.Local(at, binds, body)
        return body

    def binds(self) -> tuple[tree.Bind, ...]:
        binds = [self.bind()]
        while self.expect(",", ";") == ",":
            binds.append(self.bind())
        return tuple(binds)

    def bind(self) -> tree.Bind:
        at = self.at
        name = self.name("the name of a variable")
        if self.take("("):
            parameters = self.parameters()
            self.expect("=")
            return tree.Bind(at, name, tree.Function(at, parameters, self.expression()))
        self.expect("=")
        return tree.Bind(at, name, self.expression())

    def conditional(self) -> tree.Node:
        """Parse consecutive `else if` branches in a loop: mappings have hundreds of them."""
        branches: list[tuple[int, tree.Node, tree.Node]] = []
        no: tree.Node | None = None
        while True:
            at = self.at
            self.expect("if")
            condition = self.expression()
            self.expect("then")
            branches.append((at, condition, self.expression()))
            if not self.take("else"):
                break
            if self.text() != "if":
                no = self.expression()
                break
        for at, condition, yes in reversed(branches):
            no = tree.If(at, condition, yes, no)
        assert no is not None
        return no

    def function(self, at: int) -> tree.Node:
        self.expect("(")
        parameters = self.parameters()
        return tree.Function(at, parameters, self.expression())

    def parameters(self) -> tuple[tree.Parameter, ...]:
        found = self.listed(")", self.parameter)
        refuse_twice([(each.name, each.at) for each in found], "parameter")
        return found

    def parameter(self) -> tree.Parameter:
        at = self.at
        name = self.name('the name of a parameter or ")"')
        return tree.Parameter(at, name, self.expression() if self.take("=") else None)

    def check(self, at: int) -> tree.Check:
        condition = self.expression()
        return tree.Check(at, condition, self.expression() if self.take(":") else None)

    def operators(self, power: int) -> tree.Node:
        left = self.unary()
        while True:
            operator = self.text()
            own = _POWERS.get(operator, 0)
            if own <= power:
                return left
            at = self.at
            self.position += 1
            if operator == "in" and self.text() == "super" and self.text(1) not in (".", "["):
                self.position += 1
                left = tree.InSuper(at, left)
                continue
            left = tree.Binary(at, operator, left, self.expression(own))

    def unary(self) -> tree.Node:
        at, operator = self.at, self.text()
        if operator not in _UNARY or not operator:
            return self.suffixed()
        self.position += 1
        return tree.Unary(at, operator, self.expression(_UNARY_POWER))

    def suffixed(self) -> tree.Node:
        node = self.primary()
        while True:
            at = self.at
            match self.text():
                case ".":
                    self.position += 1
                    key = tree.Constant(self.at, self.name("the name of a field"))
                    node = tree.Index(at, node, key)
                case "[":
                    self.position += 1
                    node = self.bracketed(at, node)
                case "(":
                    self.position += 1
                    node = self.call(at, node)
                case "{":
                    self.position += 1
                    node = tree.Binary(at, "+", node, self.object(at))
                case _:
                    return node

    def bracketed(self, at: int, target: tree.Node) -> tree.Node:
        """Parse an index or a slice; `[a::b]` has one token for both of its colons."""
        parts: list[tree.Node | None] = [None]
        while not self.take("]"):
            if self.text() in (":", "::") and len(parts) + len(self.text()) <= 3:  # noqa: PLR2004
                parts += [None] * len(self.text())
                self.position += 1
            elif parts[-1] is None:
                parts[-1] = self.expression()
            else:
                raise self.wrong('":" or "]"')
        if len(parts) > 1:
            start, end, step, *_ = [*parts, None]
            return tree.Slice(at, target, start, end, step)
        if parts[0] is None:
            raise SyntaxWrong("an index is missing between the brackets", at)
        return tree.Index(at, target, parts[0])

    def call(self, at: int, target: tree.Node) -> tree.Node:
        named: list[tuple[str, tree.Node]] = []
        plain: list[tree.Node] = []

        def argument() -> None:
            if self.text(1) == "=" and self.text() not in KEYWORDS:
                name_at, name = self.at, self.name("the name of a parameter")
                self.position += 1
                if name in dict(named):
                    raise SyntaxWrong(f"the argument {name} is given twice", name_at)
                named.append((name, self.expression()))
            elif named:
                raise SyntaxWrong("an argument without a name follows one with a name", self.at)
            else:
                plain.append(self.expression())

        self.listed(")", argument)
        is_strict = self.take("tailstrict")
        return tree.Call(at, target, tuple(plain), tuple(named), is_strict)

    def primary(self) -> tree.Node:
        if self.position >= len(self.tokens):
            raise self.wrong("an expression")
        token, at = self.tokens[self.position], self.at
        match token.kind:
            case TokenKind.STRING | TokenKind.VERBATIM | TokenKind.BLOCK:
                return tree.Constant(at, self.string())
            case TokenKind.NUMBER:
                return self.number(token)
            case TokenKind.WORD:
                return self.word(token.text, at)
        match token.text:
            case "(":
                self.position += 1
                node = self.expression()
                self.expect(")")
                return node
            case "[":
                self.position += 1
                return self.array(at)
            case "{":
                self.position += 1
                return self.object(at)
            case "$":
                self.position += 1
                return tree.Dollar(at)
        raise self.wrong("an expression")

    def number(self, token: Token) -> tree.Node:
        if _NUMBER.fullmatch(token.text) is None:
            raise SyntaxWrong(f"{token.text} is not how a number is written", token.start)
        self.position += 1
        return tree.Number(token.start, token.text.replace("_", ""))

    def word(self, word: str, at: int) -> tree.Node:
        if word not in KEYWORDS:
            self.position += 1
            return tree.Name(at, word)
        match word:
            case "null" | "true" | "false":
                self.position += 1
                return tree.Constant(at, {"null": None, "true": True, "false": False}[word])
            case "self":
                self.position += 1
                return tree.Self(at)
            case "super":
                self.position += 1
                return self.super_index(at)
            case "importbin":
                raise SyntaxWrong(
                    "importbin is not supported: importstr gives the text of a file", at
                )
            case "import" | "importstr":
                self.position += 1
                return self.imported(word, at)
        # What begins with these reaches as far to the right as it can, also behind an operator.
        if word in ("local", "if", "function", "assert", "error"):
            return self.prefixed(0)
        raise self.wrong("an expression")

    def super_index(self, at: int) -> tree.Node:
        if self.take("."):
            return tree.SuperIndex(at, tree.Constant(self.at, self.name("the name of a field")))
        if self.take("["):
            key = self.expression()
            self.expect("]")
            return tree.SuperIndex(at, key)
        raise self.wrong('"." or "[" behind super')

    def imported(self, word: str, at: int) -> tree.Node:
        path = self.string()
        if self.tokens[self.position - 1].kind is TokenKind.BLOCK:
            raise SyntaxWrong("the path of an import cannot be a text block", at)
        kind = cast("Literal['import', 'importstr']", word)
        return tree.Import(at, kind, path, self.tokens[self.position - 1].end)

    def array(self, at: int) -> tree.Node:
        if self.take("]"):
            return tree.Array(at, ())
        first = self.expression()
        comma = self.take(",")
        if self.text() == "for":
            specs = self.specs()
            self.expect("]")
            return tree.ArrayOf(at, first, specs)
        if not comma:
            if self.take("]"):
                return tree.Array(at, (first,))
            raise self.wrong('"," or "]"')
        return tree.Array(at, (first, *self.listed("]", self.expression)))

    def specs(self) -> tree.Specs:
        found: list[tree.For | tree.Only] = []
        while True:
            if self.take("for"):
                name = self.name("the name of a variable")
                self.expect("in")
                found.append(tree.For(name, self.expression()))
            elif self.take("if"):
                found.append(tree.Only(self.expression()))
            else:
                return tuple(found)

    def object(self, at: int) -> tree.Node:
        fields: list[tree.Field] = []
        binds: list[tree.Bind] = []
        checks: list[tree.Check] = []
        while not self.take("}"):
            member_at = self.at
            if self.take("local"):
                binds.append(self.bind())
            elif self.take("assert"):
                checks.append(self.check(member_at))
            else:
                fields.append(self.field())
            if self.text() == "for" or (self.text() == "," and self.text(1) == "for"):
                self.take(",")
                return self.object_of(at, fields, binds, checks)
            if self.expect(",", "}") == "}":
                break
        refuse_twice([(bind.name, bind.at) for bind in binds], "variable")
        names = [(f.name, f.at) for f in fields if not f.is_computed]
        written = [(str(name.value), at) for name, at in names if isinstance(name, tree.Constant)]
        refuse_twice(written, "field")
        return tree.Object(at, tuple(fields), tuple(binds), tuple(checks))

    def object_of(
        self,
        at: int,
        fields: Sequence[tree.Field],
        binds: Sequence[tree.Bind],
        checks: Sequence[tree.Check],
    ) -> tree.Node:
        good = len(fields) == 1 and fields[0].is_computed and not checks
        if not good or fields[0].visibility != ":" or fields[0].adds:
            raise SyntaxWrong(
                'an object with "for" has exactly one field, written as [name]: value', self.at
            )
        specs = self.specs()
        self.expect("}")
        return tree.ObjectOf(at, fields[0], tuple(binds), specs)

    def field(self) -> tree.Field:
        at = self.at
        is_computed = self.take("[")
        if is_computed:
            name = self.expression()
            self.expect("]")
        else:
            name = tree.Constant(at, self.field_name())
        parameters = self.parameters() if self.take("(") else None
        colons = self.text()
        if colons not in _COLONS:
            raise self.wrong('":" behind the name of a field')
        self.position += 1
        value = self.expression()
        if parameters is not None:
            if colons.startswith("+"):
                raise SyntaxWrong("a method cannot be added with +:", at)
            value = tree.Function(at, parameters, value)
        visibility = cast("Literal[':', '::', ':::']", colons.removeprefix("+"))
        return tree.Field(at, name, visibility, colons.startswith("+"), value, is_computed)

    def field_name(self) -> str:
        if self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token.kind in (TokenKind.STRING, TokenKind.VERBATIM, TokenKind.BLOCK):
                return self.string()
        return self.name('the name of a field, or a comma before it, or "}"')

"""Jsonnet source as tokens, which joined are the source again, and checks of them before parsing.

The lexer refuses nothing: what is no token of the language is a symbol that no rule of the parser
knows, and a string that never ends is one broken token up to the end of the file. The checks find
nesting that crashes engines, and damage from a web page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar


class TokenKind(Enum):
    """The kind of a token."""

    BLANK = "blank"
    COMMENT = "comment"
    STRING = "string"
    VERBATIM = "verbatim"
    BLOCK = "block"
    WORD = "word"
    NUMBER = "number"
    SYMBOL = "symbol"
    BROKEN = "broken"
    """A string or comment that never ends: the rest of the file."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the source."""

    kind: TokenKind
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


_TOKEN: Final = re.compile(
    r"""
      (?P<BLANK>    [ \t\r\n]+ )
    | (?P<COMMENT>  (?: // | \# ) [^\n]* | /\* .*? \*/ )
    | (?P<STRING>   "(?: [^"\\] | \\. )*" | '(?: [^'\\] | \\. )*' )
    | (?P<VERBATIM> @"(?: [^"] | "" )*" | @'(?: [^'] | '' )*' )
    | (?P<WORD>     [A-Za-z_][A-Za-z0-9_]* )
    | (?P<NUMBER>   [0-9][0-9_]*(?: \.[0-9_]+ )?(?: [eE][+-]?[0-9_]+ )? )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_HEAD: Final = re.compile(r"\|\|\|-?[ \t\r]*\n\n*(?P<indent>[ \t]+)")
"""The first line that is not empty sets the indent, even where nothing but blanks stands in it."""
_BLOCK_TAIL: Final = re.compile(r"[ \t]*\|\|\|")
_OPERATOR: Final = re.compile(r"[!$:~+\-&|^=<>*/%]+")
_IN_NO_OPERATOR: Final = ("//", "/*", "|||")
_ENDS_NO_OPERATOR: Final = "+-~!$"
_NEVER_ENDING: Final = ('"', "'", '@"', "@'", "/*", "|||")


def tokens(source: str) -> Iterator[Token]:
    """Yield the tokens of the source, blanks and comments included."""
    position = 0
    while position < len(source):
        token = _token_at(source, position)
        yield token
        position = token.end


def significant(source: str) -> list[Token]:
    """Return the tokens without blanks and comments."""
    return [
        token for token in tokens(source) if token.kind not in (TokenKind.BLANK, TokenKind.COMMENT)
    ]


def location(source: str, offset: int) -> tuple[int, int]:
    """Return line and column of an offset, both from 1."""
    before = source[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _token_at(source: str, position: int) -> Token:
    if source.startswith("|||", position):
        return _block_at(source, position)
    match = _TOKEN.match(source, position)
    if match is not None and match.lastgroup is not None:
        return Token(TokenKind[match.lastgroup], match.group(), position)
    if source.startswith(_NEVER_ENDING, position):
        return Token(TokenKind.BROKEN, source[position:], position)
    return Token(TokenKind.SYMBOL, _symbol_at(source, position), position)


def _symbol_at(source: str, position: int) -> str:
    """Return an operator, as long as it can be: `a<-b` is `<` and `-`, as the language has it."""
    match = _OPERATOR.match(source, position)
    if match is None:
        return source[position]
    text = match.group()
    for stop in _IN_NO_OPERATOR:
        at = text.find(stop, 1)
        text = text if at < 0 else text[:at]
    return text.rstrip(_ENDS_NO_OPERATOR) or text[0]


def _block_at(source: str, position: int) -> Token:
    head = _BLOCK_HEAD.match(source, position)
    if head is None:
        return Token(TokenKind.BROKEN, source[position:], position)
    indent = head["indent"]
    line = head.start("indent")
    while line < len(source):
        if source[line] == "\n":
            line += 1
        elif source.startswith(indent, line):
            newline = source.find("\n", line)
            line = len(source) if newline < 0 else newline + 1
        else:
            break
    tail = _BLOCK_TAIL.match(source, line)
    end = len(source) if tail is None else tail.end()
    kind = TokenKind.BROKEN if tail is None else TokenKind.BLOCK
    return Token(kind, source[position:end], position)


_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE: Final = re.compile(
    r"\\(?:u([dD][89abAB][0-9A-Fa-f]{2})\\u([dD][c-fC-F][0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.))",
    re.DOTALL,
)
"""The form of an escape: a pair of surrogates, any other code, or a character."""
_BLOCK_BODY: Final = re.compile(r"\|\|\|(?P<chomp>-?)[ \t\r]*\n(?P<body>.*)\|\|\|\Z", re.DOTALL)
_HIGH: Final = 0xD800
_LOW: Final = 0xDC00


def value_of(token: Token) -> str | None:
    """Return the text of a string token; None for another token."""
    match token.kind:
        case TokenKind.STRING:
            return _ESCAPE.sub(_unescaped, token.text[1:-1])
        case TokenKind.VERBATIM:
            quote = token.text[1]
            return token.text[2:-1].replace(quote * 2, quote)
        case TokenKind.BLOCK:
            return _block_value(token.text)
        case _:
            return None


def _unescaped(match: re.Match[str]) -> str:
    if match[1] is not None:
        return chr(0x10000 + ((int(match[1], 16) - _HIGH) << 10) + int(match[2], 16) - _LOW)
    if match[3] is not None:
        return chr(int(match[3], 16))
    return _ESCAPES.get(match[4], match[4])


def indent_of(block: str) -> str:
    """Return the blanks that every line of a text block begins with."""
    head = _BLOCK_HEAD.match(block)
    assert head is not None
    return head["indent"]


def _block_value(text: str) -> str:
    parts = _BLOCK_BODY.match(text)
    assert parts is not None
    indent = indent_of(text)
    lines = parts["body"].split("\n")[:-1]
    value = "".join(line.removeprefix(indent) + "\n" for line in lines)
    return value[:-1] if parts["chomp"] else value


KEYWORDS: Final = frozenset(
    {
        *("assert", "else", "error", "false", "for", "function", "if", "import", "importstr"),
        *("importbin", "in", "local", "null", "self", "super", "tailstrict", "then", "true"),
    }
)
_GOOD_ESCAPES: Final = re.compile(r"""(?:[^\\]|\\["'\\/bfnrt]|\\u[0-9A-Fa-f]{4})*""", re.DOTALL)
_SHOWN: Final = 30
"""The characters of an unexpected token that a message quotes."""

Listed = TypeVar("Listed")


class SyntaxWrong(Exception):  # noqa: N818 - names what is wrong
    """The source does not parse."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message, at)
        self.message = message
        self.at = at


@dataclass(slots=True)
class Cursor:
    """A position among significant tokens."""

    tokens: Sequence[Token]
    end: int
    position: int = 0

    def text(self, ahead: int = 0) -> str:
        """Return the text of a token that is no string; "" for a string or the end."""
        at = self.position + ahead
        if at >= len(self.tokens):
            return ""
        token = self.tokens[at]
        return token.text if token.kind in (TokenKind.SYMBOL, TokenKind.WORD) else ""

    @property
    def at(self) -> int:
        if self.position < len(self.tokens):
            return self.tokens[self.position].start
        return self.end

    def take(self, text: str) -> bool:
        """Go over a token if it is the next one."""
        if self.text() != text:
            return False
        self.position += 1
        return True

    def expect(self, *texts: str) -> str:
        """Go over the next token, which must be one of these, and return its text."""
        for text in texts:
            if self.take(text):
                return text
        raise self.wrong(" or ".join(f'"{text}"' for text in texts))

    def wrong(self, expected: str) -> SyntaxWrong:
        """Return the error about an unexpected next token."""
        if self.position >= len(self.tokens):
            return SyntaxWrong(f"expected {expected}, but the file ends", self.end)
        token = self.tokens[self.position]
        if token.kind is TokenKind.BROKEN:
            return SyntaxWrong(_unterminated(token.text), token.start)
        said = token.text if len(token.text) <= _SHOWN else token.text[:_SHOWN] + "…"
        return SyntaxWrong(f"expected {expected}, but found {said}", token.start)

    def finish(self) -> None:
        """Refuse a file that goes on after its expression."""
        if self.position < len(self.tokens):
            raise self.wrong("the end of the file or an operator")

    def name(self, what: str) -> str:
        if self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token.kind is TokenKind.WORD and token.text not in KEYWORDS:
                self.position += 1
                return token.text
        raise self.wrong(what)

    def string(self) -> str:
        token = self.tokens[self.position] if self.position < len(self.tokens) else None
        value = value_of(token) if token is not None else None
        if token is None or value is None:
            raise self.wrong("a string")
        if token.kind is TokenKind.STRING:
            good = _GOOD_ESCAPES.match(token.text[1:-1])
            assert good is not None
            if good.end() != len(token.text) - 2:
                at = token.start + 1 + good.end()
                escape = token.text[good.end() + 1 : good.end() + 3]
                raise SyntaxWrong(f'"{escape}" is no escape in a string', at)
        self.position += 1
        return value

    def listed(self, closing: str, item: Callable[[], Listed]) -> tuple[Listed, ...]:
        """Return items between commas, up to the closing token; a comma may stand before it."""
        items: list[Listed] = []
        while not self.take(closing):
            items.append(item())
            if self.expect(",", closing) == closing:
                break
        return tuple(items)


def _unterminated(text: str) -> str:
    if text.startswith("/*"):
        return "a comment is unterminated: */ is missing"
    if text.startswith("|||"):
        return "a text block is unterminated, or its first line is not indented"
    return "a string is unterminated: its closing quote is missing"


def refuse_twice(names: Sequence[tuple[str, int]], what: str) -> None:
    """Refuse a name that is given twice; names come with their offsets."""
    seen: set[str] = set()
    for name, at in names:
        if name in seen:
            raise SyntaxWrong(f"the {what} {name} is defined twice", at)
        seen.add(name)


MAX_DEPTH: Final = 200
"""The largest number of nested brackets; rjsonnet dies of some thousands."""
MAX_CHAIN: Final = 2_000
"""The largest number of tokens between two `,` or `;`. The reference engine dies of 20,000."""
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_SEPARATORS: Final = frozenset(",;")


def refuse_too_deep(found: Sequence[Token]) -> None:
    """Refuse expressions that are nested or chained beyond what the engines survive.

    Raises:
        SyntaxWrong: It names the first one.
    """
    chains = [0]
    for token in found:
        if token.text in _OPENING:
            chains.append(0)
        elif token.text in _CLOSING and len(chains) > 1:
            chains.pop()
        chains[-1] = 0 if token.text in _SEPARATORS else chains[-1] + 1
        if len(chains) - 1 > MAX_DEPTH:
            raise _too_deep(f"brackets are nested deeper than {MAX_DEPTH}", token)
        if chains[-1] > MAX_CHAIN:
            raise _too_deep(f"one expression has more than {MAX_CHAIN} parts", token)


def _too_deep(message: str, token: Token) -> SyntaxWrong:
    return SyntaxWrong(f"{message}; simplify the template", token.start)


_VALID_ESCAPES: Final = frozenset("\"'\\/bfnrtu")
_ANY_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def markdown_damage(found: Sequence[Token]) -> tuple[int, str] | None:
    r"""Return offset and text of the first escape that only Markdown makes, such as `\[` or `\_`.

    Templates copied from a page often carry them: outside a string a backslash means nothing in
    Jsonnet, and in a string only some escapes exist.
    """
    for token, after in zip(found, [*found[1:], None], strict=True):
        if token.text == "\\":
            return token.start, token.text + (after.text[:1] if after is not None else "")
        if token.kind is not TokenKind.STRING:
            continue
        for escape in _ANY_ESCAPE.finditer(token.text):
            if escape[1] not in _VALID_ESCAPES:
                return token.start + escape.start(), escape.group()
    return None

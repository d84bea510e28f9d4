"""A lexer that splits Jsonnet source into tokens; joined, they are the source again.

Nothing is refused here: what is no token of the language is a symbol that no rule of the parser
knows, and a string that never ends is one broken token up to the end of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final


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
        """The offset behind the token."""
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
_BLOCK_HEAD: Final = re.compile(r"\|\|\|-?[ \t\r]*\n(?:[ \t\r]*\n)*(?P<indent>[ \t]+)")
_BLOCK_TAIL: Final = re.compile(r"[ \t]*\|\|\|")
_BLANK_LINE: Final = re.compile(r"[\r]?\n")
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


def place(source: str, offset: int) -> tuple[int, int]:
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
        blank = _BLANK_LINE.match(source, line)
        if blank is not None:
            line = blank.end()
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
    """Return what a string token stands for; None where it is no string."""
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


def _block_value(text: str) -> str:
    head = _BLOCK_HEAD.match(text)
    parts = _BLOCK_BODY.match(text)
    assert head is not None
    assert parts is not None
    indent = head["indent"]
    lines = parts["body"].split("\n")[:-1]
    value = "".join(line.removeprefix(indent) + "\n" for line in lines)
    return value[:-1] if parts["chomp"] else value

"""Splits Jsonnet source into its tokens: enough to find imports, and damage, without parsing.

The engines report syntax errors; this lexer only has to agree with them about where comments,
strings and text blocks begin and end. Joined, the tokens are the source again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

MAX_DEPTH: Final = 200
"""Nested brackets in one file. rjsonnet dies of some thousands; nobody writes a hundred."""
MAX_CHAIN: Final = 2_000
"""Tokens in one expression without `,` or `;`. The reference engine dies of 20,000."""


class Kind(Enum):
    """What a token is."""

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
    """A piece of the source.

    Args:
        kind: What it is.
        text: The piece itself.
        start: Its offset in the source.
    """

    kind: Kind
    text: str
    start: int

    @property
    def end(self) -> int:
        """The offset behind it."""
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
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_SEPARATORS: Final = frozenset(",;")
_NEVER_ENDING: Final = ('"', "'", '@"', "@'", "/*", "|||")


def tokens(source: str) -> Iterator[Token]:
    """Yield the tokens of the source, blanks and comments included."""
    position = 0
    while position < len(source):
        token = _token_at(source, position)
        yield token
        position = token.end


def _token_at(source: str, position: int) -> Token:
    if source.startswith("|||", position):
        return _block_at(source, position)
    match = _TOKEN.match(source, position)
    if match is not None and match.lastgroup is not None:
        return Token(Kind[match.lastgroup], match.group(), position)
    if source.startswith(_NEVER_ENDING, position):
        return Token(Kind.BROKEN, source[position:], position)
    return Token(Kind.SYMBOL, source[position], position)


def _block_at(source: str, position: int) -> Token:
    head = _BLOCK_HEAD.match(source, position)
    if head is None:
        return Token(Kind.BROKEN, source[position:], position)
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
    kind = Kind.BROKEN if tail is None else Kind.BLOCK
    return Token(kind, source[position:end], position)


def place(source: str, offset: int) -> tuple[int, int]:
    """Return line and column of an offset, both from 1."""
    before = source[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


@dataclass(frozen=True, slots=True)
class Import:
    """An `import`, `importstr` or `importbin` with its string.

    Args:
        word: Which of the three.
        target: The string's value: what is imported.
        start: Offset of the word.
        end: Offset behind the string.
    """

    word: str
    target: str
    start: int
    end: int


_IMPORT_WORDS: Final = frozenset({"import", "importstr", "importbin"})


def significant(source: str) -> list[Token]:
    """Return the tokens without blanks and comments."""
    return [token for token in tokens(source) if token.kind not in (Kind.BLANK, Kind.COMMENT)]


def imports(found: Sequence[Token]) -> list[Import]:
    """Return the imports among significant tokens. A field named `import` is none."""
    return [
        Import(word.text, target, word.start, string.end)
        for word, string in pairwise(found)
        if word.kind is Kind.WORD
        and word.text in _IMPORT_WORDS
        and (target := value_of(string)) is not None
    ]


_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)


def value_of(token: Token) -> str | None:
    """Return what a string token stands for; None where it is no string on one line."""
    match token.kind:
        case Kind.STRING:
            return _ESCAPE.sub(_unescaped, token.text[1:-1])
        case Kind.VERBATIM:
            quote = token.text[1]
            return token.text[2:-1].replace(quote * 2, quote)
        case _:
            return None


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    return _ESCAPES.get(escape, escape)


@dataclass(frozen=True, slots=True)
class TooDeep:
    """An expression that an engine might not survive.

    Args:
        offset: Where the limit is passed.
        message: What is too much.
    """

    offset: int
    message: str


def too_deep(found: Sequence[Token]) -> TooDeep | None:
    """Say where significant tokens are nested or chained beyond what the engines survive."""
    chains = [0]
    for token in found:
        if token.text in _OPENING:
            chains.append(0)
        elif token.text in _CLOSING and len(chains) > 1:
            chains.pop()
        chains[-1] = 0 if token.text in _SEPARATORS else chains[-1] + 1
        if len(chains) - 1 > MAX_DEPTH:
            return TooDeep(token.start, f"brackets are nested deeper than {MAX_DEPTH}")
        if chains[-1] > MAX_CHAIN:
            return TooDeep(token.start, f"one expression has more than {MAX_CHAIN} parts")
    return None


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
        if token.kind is not Kind.STRING:
            continue
        for escape in _ANY_ESCAPE.finditer(token.text):
            if escape[1] not in _VALID_ESCAPES:
                return token.start + escape.start(), escape.group()
    return None

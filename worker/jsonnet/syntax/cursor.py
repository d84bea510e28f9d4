"""A position among the tokens of a file, with messages about tokens that are not expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from worker.jsonnet.syntax.tokens import Token, TokenKind, value_of

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
        """Return the offset of the next token."""
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
        """Return the error for the next token, which is not what is expected."""
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
        """Go over a name and return it."""
        if self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token.kind is TokenKind.WORD and token.text not in KEYWORDS:
                self.position += 1
                return token.text
        raise self.wrong(what)

    def string(self) -> str:
        """Go over a string and return what it stands for."""
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

"""Splits a JSON text into its payloads without building what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_QUOTE, _ARRAY, _ARRAY_END = b'"[]'
_OPENING: Final = frozenset(b"{[")
_DEEPEST: Final = 1_024
"""The number of levels beyond which no parser of ours reads JSON."""

_MOST_TOKENS: Final = 3_000_000
"""The largest number of texts and brackets, which are looked at one by one: about three seconds."""
_BYTES_A_TOKEN: Final = 6

Extent = tuple[int, int]
"""The offsets of a payload in its text."""


def spans_of(text: bytes) -> Iterator[Extent]:
    """Yield the extent of each payload: elements of arrays, and values one after the other.

    What stands between them and is more than a comma is a payload, too: it can't be read, or is
    none. So nothing of a text is ever left out.

    Raises:
        ValueError: Its brackets or quotes don't match, it is nested deeper than 1,024 levels, or is
            made of more values than people's profiles are.
    """
    if _tokens(text) > max(_MOST_TOKENS, len(text) // _BYTES_A_TOKEN):
        raise ValueError("it is made of too many values")
    depth, begin, in_array = 0, len(_BOM) * text.startswith(_BOM), False
    for token in _TOKEN.finditer(text):
        kind = text[token.start()]
        if kind == _QUOTE:
            if token.end() - token.start() == 1:
                raise ValueError("a text is not closed")
            continue
        if kind in _OPENING:
            if depth == 0:
                yield from _between(text, begin, token.start())
                begin = token.start()
                if kind == _ARRAY and not in_array:
                    in_array, begin = True, token.end()
                    continue
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(f"it is nested deeper than {_DEEPEST:,} levels")
        elif depth:
            depth -= 1
            if depth == 0:
                yield begin, token.end()
                begin = token.end()
        elif in_array and kind == _ARRAY_END:
            yield from _between(text, begin, token.start())
            in_array, begin = False, token.end()
        else:
            raise ValueError("a bracket closes nothing")
    if depth or in_array:
        raise ValueError("a bracket is not closed")
    yield from _between(text, begin, len(text))


def _tokens(text: bytes) -> int:
    return text.count(b'"') // 2 + text.count(b"{") + text.count(b"[")


def _between(text: bytes, begin: int, end: int) -> Iterator[Extent]:
    if text[begin:end].strip(_SPACE) not in (b"", b","):
        yield begin, end

"""The words that a template's messages may consist of without disclosing anything of an event."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from segrelay.jsonnet.files import Bundle
from segrelay.jsonnet.syntax.tokens import TokenKind

MAX_SHOWN: Final = 200
"""The characters of a message that are kept: enough for one sentence."""
_WORD: Final = re.compile(r"\w+")
_EMAIL: Final = re.compile(r"[^\s\"'<>(),;:]+@[^\s\"'<>(),;:]+")
_TAG: Final = re.compile(r"(?!<email>)<[^<>]*>")
_EMAIL_OR_WORD: Final = re.compile(r"<email>|\w+")
_SPACE: Final = re.compile(r"\s+")
_HIDDEN: Final = "…"
_HIDDEN_RUN: Final = re.compile(rf"{_HIDDEN}(?:[^\w<>]*{_HIDDEN})+")
_ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SPEAKING: Final = frozenset(
    {TokenKind.STRING, TokenKind.VERBATIM, TokenKind.BLOCK, TokenKind.WORD}
)

_ENGINE: Final = frozenset(
    _WORD.findall(
        """
        assert assertion failed runtime static error syntax type mismatch expected got found
        no such field fields does not exist missing property local variable is not defined
        duplicate name array string bounds out of is not within index indexed to with by fractional
        value values only functions can be called function has too many args arguments argument
        parameter already bound passed not enough operator binary operation does not operate on
        implemented cannot cant can t manifest couldn unexpected null number object boolean true
        false attempted attempt divide division by zero stack overflow max frames exceeded try to
        reduce recursion or set bigger infinite detected format truncated code unrecognized
        conversion mapping keys required subfield both should be of the same one the this in at
        an and for a from while parse parsing json JSON invalid unicode codepoint base integer
        decimal hex octal digit character characters char std join parseInt parseJson top level
        usable inside super self loop iterate over arrays objects length must positive negative
        non empty empty key keys overflow range element elements endless evaluation takes many steps
        loop large memory
        """
    )
)
"""The words of the engines' own messages; between them, engines quote values of the event."""


def words_of(bundle: Bundle) -> frozenset[str]:
    """Return the words of a template's own strings and names, and those of the engines.

    Comments are no part of it: nothing of them is ever said.
    """
    return _ENGINE.union(*map(_WORD.findall, _texts(bundle)))


def without_data(text: str, words: AbstractSet[str]) -> str:
    """Return a message as one line in which every word that is not known is hidden.

    A template's message may quote whatever the template knows of a person.
    """
    shown = "".join(each if each.isprintable() else " " for each in text)
    shown = _EMAIL.sub("<email>", shown)
    shown = _EMAIL_OR_WORD.sub(lambda found: _known(found[0], words), shown)
    shown = _TAG.sub(" ", _HIDDEN_RUN.sub(_HIDDEN, shown))
    return _SPACE.sub(" ", shown).strip()[:MAX_SHOWN]


def _known(word: str, words: AbstractSet[str]) -> str:
    return word if word in words or word.startswith("<") else _HIDDEN


def _texts(bundle: Bundle) -> Iterator[str]:
    for file in bundle.files.values():
        for token in file.tokens:
            if token.kind in _SPEAKING:
                yield _ESCAPE.sub(" ", token.text)

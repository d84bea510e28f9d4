"""Text that is safe to print: no text can make a terminal do anything but show it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that a terminal obeys: C0 and C1, marks of direction, line separators."""
LAYOUT: Final = "\n\t"


def printable(text: str, *, keep: str = "") -> str:
    r"""Return a text in which every control character is written as its escape, like `\x1b`.

    Texts of payloads, templates and answers pass through it before a terminal sees them: an
    audience named with an escape sequence could otherwise rewrite the screen. `say`, `mention`,
    `table` and `print_json` of the command line and the workers' log do it by themselves; what is
    printed in another way calls it.
    """
    return CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def plural(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun, e.g. `1 letter` and `2,000 letters`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def did_you_mean(word: str, known: Iterable[str], *, or_list: bool = True) -> str:
    """Return a hint with the nearest known word, else with all known words if these are wanted."""
    words = sorted(known)
    longer = [known for known in words if word.startswith(f"{known}_")]
    near = longer or difflib.get_close_matches(word, words, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there is {', '.join(words)}" if words and or_list else ""


def json_text(text: bytes) -> str:
    r"""Return a JSON text for a terminal, with control characters escaped, such as `\u009b`."""
    return CONTROLS.sub(
        lambda found: found[0] if found[0] in LAYOUT else f"\\u{ord(found[0]):04x}",
        text.decode(),
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()

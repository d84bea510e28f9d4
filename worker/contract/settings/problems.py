"""Problems of a configuration: each with its place and, where there is one, a hint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_*-]+")
_CLOSE_ENOUGH: Final = 0.6

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false, without quotes",
    "tuple_type": "must be a list in brackets",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


_INSTEAD: Final[Mapping[str, str]] = {
    "stable": "nobody is followed: use an identity that stays (docs/limits.md)",
    "canary": "`segrelay template diff` shows what changes (docs/limits.md)",
    "read_back_every": "`segrelay verify` compares with Insider (docs/limits.md)",
}
"""Hints for keys that people look for and that there are not."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, or, as a warning, looks wrong.

    Args:
        location: Key path (`triggers.vip-enter.url`), `line 3, column 7`, or "" for the whole file.
        message: The problem, without a value that could be secret.
        hint: Advice; "" where that is plain.
    """

    location: str
    message: str
    hint: str = ""

    def line(self, file: str) -> str:
        """Return the problem as one line for a person."""
        parts = [part for part in (file, self.location, self.message) if part]
        return ": ".join(parts) + (f" — {self.hint}" if self.hint else "")


def location_of(path: Iterable[str | int]) -> str:
    """Return a key path as TOML writes it, with positions of lists in brackets."""
    location = ""
    for step in path:
        if isinstance(step, int):
            location += f"[{step}]"
            continue
        key = step if _BARE_KEY.fullmatch(step) else f'"{step}"'
        location += f".{key}" if location else key
    return location


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the nearest known word, or with all known words if none is near."""
    words = sorted(known)
    longer = [known for known in words if word.startswith(f"{known}_")]
    near = longer or difflib.get_close_matches(word, words, n=1, cutoff=_CLOSE_ENOUGH)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there is {', '.join(words)}" if words else ""


def problem_of(
    error: Mapping[str, Any], *, path: tuple[str | int, ...], known: Iterable[str]
) -> Problem:
    """Return one of pydantic's errors as a problem."""
    location = location_of((*path, *error["loc"]))
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        return Problem(location, "unknown key", _INSTEAD.get(key) or did_you_mean(key, known))
    if error["type"] == "literal_error":
        return Problem(location, f"must be {context['expected']}", _near_literal(error))
    known_message = _MESSAGES.get(error["type"])
    message = known_message.format_map(context) if known_message else error["msg"]
    return Problem(location, message, context.get("hint", ""))


def _near_literal(error: Mapping[str, Any]) -> str:
    choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
    given = error.get("input")
    near = difflib.get_close_matches(given, choices, n=1) if isinstance(given, str) else []
    return f"did you mean {near[0]!r}?" if near else ""

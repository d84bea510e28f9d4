"""Names, constants and random choices that all parts of the grammar share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

LIBRARY: Final = "lytemplates.libsonnet"
HELPERS: Final = ("plain.libsonnet", "about.libsonnet", "through.libsonnet")
FIELDS: Final = (
    "email", "age", "name", "tags", "map", "rows", "flag", "nothing", "city", "text",
    "segment_events", "_segments", "absent",
)  # fmt: skip
KINDS: Final = ("number", "string", "bool", "array", "object")
STRINGS: Final = (
    "", "a", "b", "ab", "x,y,z", " pad ", "é", "日本語", "UPPER lower", "12", "-7", 'q"uote',
    "a.b", "vip", "enter", "email", "new\nline", "back\\slash", "null", "😀",
)  # fmt: skip
KEYS: Final = ("a", "b", "c", "email", "x y", "id", "slug", "event", "é")
_HOLE: Final = re.compile("«([^»]+)»")


@dataclass(frozen=True, slots=True)
class NamesInSight:
    """The names that an expression may use.

    Args:
        variables: Names with their types; `any` if the type is not known.
        functions: Names with their numbers of parameters.
        self_fields: Fields of the enclosing object that may be used without endless recursion.
        in_object: There is an enclosing object.
    """

    variables: tuple[tuple[str, str], ...] = ()
    functions: tuple[tuple[str, int], ...] = ()
    self_fields: tuple[str, ...] = ()
    in_object: bool = False


@dataclass
class Base(ABC):
    """A generator of literals and names, from which expressions are built.

    Args:
        random: Source of all decisions.
        helpers: Files that may be imported.
        names: Names that may be used at this point.
    """

    random: Random
    helpers: Sequence[str] = ()
    names: NamesInSight = field(default_factory=NamesInSight)
    _count: int = 0

    @abstractmethod
    def some(self, depth: int, kind: str) -> str:
        """Return an expression of a type, or sometimes of another type."""

    def filled(self, patterns: Sequence[str], depth: int) -> str:
        """Choose one of the patterns, and fill its holes with random expressions."""
        pattern = self.random.choice(patterns)
        return _HOLE.sub(lambda hole: self._filling(hole[1], depth - 1), pattern)

    def _filling(self, hole: str, depth: int) -> str:
        if " " in hole:
            return self.random.choice(hole.split())
        if hole in {*KINDS, "any"}:
            return self.some(depth, hole)
        method = getattr(self, hole.rstrip("!0"))
        return str(method(0 if hole.endswith("0") else depth))

    def fresh(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def chance(self, part: float) -> bool:
        return self.random.random() < part

    def variable(self, kind: str) -> str | None:
        fitting = [name for name, own in self.names.variables if own in (kind, "any")]
        return self.random.choice(fitting) if fitting else None

    def field(self, _depth: int = 0) -> str:
        return self.quoted(self.random.choice(FIELDS))

    def default(self, depth: int, kind: str) -> str:
        return f", {self.some(depth - 1, kind)}" if self.chance(0.6) else ""

    def quoted(self, text: str) -> str:
        """Return a string literal in one of the notations of the language."""
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        match self.random.randint(0, 3):
            case 0:
                return '"' + escaped.replace('"', '\\"') + '"'
            case 1 if "\n" not in text:
                return "@'" + text.replace("'", "''") + "'"
            case _:
                return "'" + escaped.replace("'", "\\'") + "'"

    def block(self) -> str:
        """Return a text block (`|||`)."""
        indent = self.random.choice(("  ", "\t", "   "))
        lines = self.random.choice((("one",), ("one", "  two"), ("x", "", "%s"), ("a \\n b",)))
        chomp = self.random.choice(("", "-"))
        text = "".join(f"{indent}{line}\n" if line else "\n" for line in lines)
        return f"|||{chomp}\n{text}|||"

    def slice(self, _depth: int = 0) -> str:
        bounds = ("", "0", "1", "2", "5", "-1")
        start, end, step = (self.random.choice(bounds) for _ in range(3))
        return f"[{start}:{end}]" if self.chance(0.7) else f"[{start}:{end}:{step.strip('-')}]"

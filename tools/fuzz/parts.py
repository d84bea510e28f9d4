"""Names, constants and random choices that all parts of the grammar share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
    """A generator of literals and names, from which expressions are built."""

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


LIBRARY_CALLS: Final[Mapping[str, Sequence[str]]] = {
    "string": (
        "event.get(«field», '')",
        "event.segSlug()",
        "event.sha256(«string»)",
        "event.sha1(«any»)",
        "event.get('segment_events')[0].event",
        "event.enum(«string», ['a', 'b', 'vip'], 'a')",
        "event.jobConfGet('setting', «string»)",
        "event.notNull(event.get(«field»), «any»)",
        "event.profileFieldFromConfig('field', «any»)",
        "event.validatedEnum('setting', ['a', 's'], «string»)",
    ),
    "bool": (
        "event.has(«field»)",
        "event.has('a', «object»)",
        "event.isEnter()",
        "event.isExit()",
        "event.inSeg(«string»)",
        "event.isValidSha1(«string»)",
        "event.segEvIsEnter(event.get('segment_events')[0])",
    ),
    "number": ("event.get('age')", "event.get('age', 0)", "std.length(event.get('tags'))"),
    "array": ("event.get('tags', [])", "event.get('rows')", "event.get('_segments', [''])"),
    "object": ("event.get('map')", "event.get('segment_events')[0]", "event"),
}
NUMBERS: Final = (
    *("(«number» «+ + - - * / %» «number»)",) * 3,
    "(-«number»)",
    "std.length(«any»)",
    "std.«abs sign floor ceil round sqrt isEven»(«number»)",
    "std.«max min pow modulo»(«number», «number»)",
    "std.«parseInt codepoint parseHex»(«string!»)",
    "std.parseInt(«string!»)",
    "std.«foldl foldr»(function(x, y) x «+ -» y, «array!», «number»)",
    "std.count(«array!», «any»)",
    "std.clamp(«number», «number», «number»)",
    "std.«sum minArray maxArray»(«array!»)",
    "(«number» «& | ^ << >>» «number»)",
    "(~«number»)",
    "std.«log exp»(«number»)",
    "std.mod(«number», «number»)",
)
STRING_PATTERNS: Final = (
    *("(«string» + «any»)",) * 2,
    "(«any» + «string»)",
    "std.«toString type manifestJsonMinified»(«any»)",
    "std.manifestJsonEx(«any», '  ')",
    "std.escapeString«Json Python Bash Dollars XML»(«any»)",
    "std.«asciiUpper asciiLower trim md5 sha256 base64 base64Decode»(«string»)",
    "std.substr(«string», «number0», «number0»)",
    "std.join(«string», «array!»)",
    "std.strReplace(«string», «string», «string»)",
    *("«format»",) * 2,
    "std.«stripChars lstripChars rstripChars»(«string», «string»)",
    "«string»[«number0»]",
    "«string»«slice»",
    "std.char(«65 97 233 128512 10»)",
    "std.repeat(«string», «0 1 2 3»)",
    "std.lines(«array!»)",
)
CONDITIONS: Final = (
    *("(«any» «== !=» «any»)",) * 2,
    "(«number» «< > <= >=» «number»)",
    "(«string» «< > <= >=» «string»)",
    "(«array» «< > <= >=» «array»)",
    *("(«bool» «&& ||» «bool»)",) * 2,
    "(!«bool»)",
    "(«string0» in «object»)",
    "std.member(«array», «any»)",
    "std.«startsWith endsWith equalsIgnoreCase»(«string!», «string0»)",
    "std.is«String Number Boolean Object Array Function»(«any»)",
    "std.«objectHas objectHasAll»(«object!», «string0»)",
    "std.isEmpty(«string!»)",
    "std.«all any»([«bool», «bool»])",
    "(«any» == «null true 1»)",
    "(«any» == «string0»)",
    "std.setMember(«string0», std.set(«array!»))",
)
ARRAYS: Final = (
    *("«listed»",) * 3,
    *("«comprehension»",) * 3,
    "(«array» + «array»)",
    "«array»«slice»",
    "std.map(«lambda_», «array»)",
    "std.filter(function(x) «predicate», «array»)",
    "std.split(«string!», «string0»)",
    "std.splitLimitR(«string!», «string0», «-1 0 1 2»)",
    "std.range(«0 1 2», «0 1 2 3 4 5»)",
    "std.«objectFields objectValues objectFieldsAll»(«object»)",
    "std.«sort uniq set reverse flattenArrays»(«array»)",
    "std.«setUnion setInter setDiff»(std.set(«array»), std.set(«array»))",
    "std.flatMap(function(x) [x, «any»], «array»)",
    "std.mapWithIndex(function(i, x) [i, «any»], «array»)",
    "std.makeArray(«0 1 2 3», «lambda_»)",
    "std.find(«any», «array»)",
    "std.sort(«array», «lambda_»)",
    "std.stringChars(«string!»)",
)
OWN: Final = (
    "std.length(self)",
    "std.objectFields(self)",
    "std.objectHas($, 'a')",
    "'a' in super",
    "(if 'b' in super then super.b else 1)",
)
"""Expressions about the enclosing object that read none of its own fields."""
OBJECTS: Final = (
    "(«object» + «object»)",
    "«object_comprehension»",
    "std.mapWithKey(function(k, x) «any», «object»)",
    "std.prune(«object»)",
    "std.mergePatch(«object», «object»)",
    "(«object» «literal»)",
)

"""A grammar of random templates: mostly sensible, with values of a wrong type here and there.

Templates that crash rjsonnet are avoided: numbers are small, and a local never refers to itself.
Crashes that happen all the same are counted.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        in_object: True if there is an enclosing object.
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

    def fresh(self, dead_letter: str) -> str:
        self._count += 1
        return f"{dead_letter}{self._count}"

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


_CODES: Final = (
    *("%s", "%s", "%d", "%i", "%5s", "%-5s|", "%03d", "%+d", "% d", "%c", "%%", "%x", "%X", "%#x"),
    *("%o", "%.3d", "%08x"),
)
_FRACTION_CODES: Final = (
    *("%.1f", "%.0f", "%f", "%7.2f", "%-7.1f|", "%+.1f", "%07.1f", "%g", "%.3g", "%#g", "%e"),
    *("%.2E", "%s", "%d"),
)


_WRONG: Final = 0.06

Make = Callable[["Grammar", int], str]


@dataclass
class Grammar(Base):
    """A generator of expressions of a given type and of limited depth."""

    # Numbers, strings and booleans.

    def library(self, depth: int, kind: str) -> str:
        return self.filled(LIBRARY_CALLS[kind], depth)

    def number(self, depth: int) -> str:
        if depth <= 0 or self.chance(0.3):
            return self.random.choice(
                ("0", "1", "2", "3", "7", "10", "-1", "1.5", "0.25", "100", "-0", "1e3", "12345678")
            )
        return self.filled(NUMBERS, depth)

    def string(self, depth: int) -> str:
        if depth > 0 and self.chance(0.7):
            return self.filled(STRING_PATTERNS, depth)
        return self.block() if self.chance(0.05) else self.quoted(self.random.choice(STRINGS))

    def format(self, depth: int) -> str:
        codes = _FRACTION_CODES if self.chance(0.4) else _CODES
        used = [self.random.choice(codes) for _ in range(self.random.randint(1, 3))]
        values = [
            self.some(depth, "string" if code.rstrip("|")[-1] in "sc" else "number")
            for code in used
            if code != "%%"
        ]
        text = " ".join(used)
        if self.chance(0.15):
            return f"('%(a)s and %(b)d' % {self.some(depth, 'object')})"
        if len(values) == 1 and self.chance(0.5):
            return f"('{text}' % {values[0]})"
        listed = f"[{', '.join(values)}]"
        return self.random.choice((f"('{text}' % {listed})", f"std.format('{text}', {listed})"))

    def truth(self, depth: int) -> str:
        if depth <= 0 or self.chance(0.15):
            return self.random.choice(("true", "false"))
        if self.chance(0.1):
            return self.library(depth, "bool")
        return self.filled(CONDITIONS, depth)

    # Arrays and objects.

    def array(self, depth: int) -> str:
        if depth <= 0:
            return self.random.choice(("[]", "[1, 2, 3]", "['a', 'b']", "[null]", "[[1], [2]]"))
        return self.filled(ARRAYS, depth)

    def listed(self, depth: int) -> str:
        items = [self.some(depth, "any") for _ in range(self.random.randint(0, 3))]
        return f"[{', '.join(items)}]"

    def lambda_(self, depth: int) -> str:
        if self.chance(0.1):
            return self.random.choice(("std.length", "std.toString", "std.type", "event.get"))
        before = self.names
        name = self.fresh("x")
        self.names = replace(before, variables=(*before.variables, (name, "any")))
        text = f"function({name}) {self.some(depth, 'any')}"
        self.names = before
        return text

    def predicate(self, depth: int) -> str:
        before = self.names
        self.names = replace(before, variables=(*before.variables, ("x", "any")))
        text = self.truth(depth)
        self.names = before
        return text

    def comprehension(self, depth: int) -> str:
        before = self.names
        specs = self.specs(depth)
        text = f"[{self.some(depth, 'any')} {specs}]"
        self.names = before
        return text

    def specs(self, depth: int) -> str:
        parts: list[str] = []
        for _ in range(self.random.choice((1, 1, 1, 2))):
            source = self.some(depth, "array")
            name = self.fresh("i")
            self.names = replace(self.names, variables=(*self.names.variables, (name, "any")))
            parts.append(f"for {name} in {source}")
            if self.chance(0.3):
                parts.append(f"if {self.truth(depth)}")
        return " ".join(parts)

    def object(self, depth: int) -> str:
        if depth <= 0:
            return self.random.choice(("{}", "{ a: 1 }", "{ b: 'x', a: null }", "{ a: [1], c: 2 }"))
        return self.filled(OBJECTS, depth) if self.chance(0.4) else self.literal(depth)

    def object_comprehension(self, depth: int) -> str:
        before = self.names
        specs = self.specs(depth)
        key = self.random.choice((self.string(0), f"'' + {self.some(0, 'number')}"))
        value = self.some(depth, "any")
        if self.chance(0.3):
            value = f"[{value}, {self.random.choice(OWN)}]"
        text = f"{{ [{key}]: {value} {specs} }}"
        self.names = before
        return text

    def literal(self, depth: int) -> str:
        """Return the text of a random Jsonnet object; its fields may use `self` and `$`."""
        before = self.names
        members: list[str] = []
        is_rich = self.chance(0.3)
        keys = self.random.sample(KEYS, self.random.randint(0, 4))
        if is_rich:
            self.names = replace(before, in_object=True, self_fields=())
        if self.chance(0.15):
            members.append(self.local(depth - 1).removesuffix(";"))
        if self.chance(0.1):
            members.append(f"assert {self.truth(depth - 1)}")
        for key in keys:
            members.append(self.member(key, depth - 1, is_rich=is_rich))
            if is_rich and key.isidentifier() and key.isascii():
                fields = (*self.names.self_fields, key)
                self.names = replace(self.names, self_fields=fields)
        self.names = before
        return "{ " + ", ".join(members) + " }"

    def member(self, key: str, depth: int, *, is_rich: bool) -> str:
        name = key if key.isidentifier() and key.isascii() and self.chance(0.6) else f"'{key}'"
        colons = ":"
        if is_rich and self.chance(0.35):
            colons = self.random.choice(("::", "+:", ":::", "::"))
        if self.chance(0.08) and colons == ":":
            condition = self.truth(depth)
            name = self.random.choice(
                (f"[if {condition} then '{key}']", f"['{key}']", f"[{self.string(depth)}]")
            )
            colons = self.random.choice((":", "+:")) if is_rich else ":"
        return f"{name}{colons} {self.some(depth, 'any')}"

    # Templates.

    def template(self) -> str:
        """Return the text of a template."""
        lines = [f"local event = import {self.quoted(LIBRARY)};"]
        return "\n".join([*lines, self.body(self.random.randint(3, 5))])

    def body(self, depth: int) -> str:
        """Return some `local` bindings, followed by a value."""
        before = self.names
        lines = [self.local(depth - 1) for _ in range(self.random.randint(0, 4))]
        if self.random.random() < 0.15:  # noqa: PLR2004
            message = f" : {self.string(1)}" if self.random.random() < 0.8 else ""  # noqa: PLR2004
            lines.append(f"assert {self.truth(depth - 1)}{message};")
        kind = self.random.choice(("object", "object", "array", "any"))
        text = "\n".join([*lines, self.some(depth, kind)])
        self.names = before
        return text

    # Names.

    def local(self, depth: int) -> str:
        if self.chance(0.3):
            return f"local {self.function(depth)};"
        kind = self.random.choice(KINDS)
        value = self.some(depth, kind)
        name = self.fresh("v")
        self.names = replace(self.names, variables=(*self.names.variables, (name, kind)))
        return f"local {name} = {value};"

    def function(self, depth: int) -> str:
        """Return the definition of a function, which later expressions may call."""
        name = self.fresh("f")
        before = self.names
        params = [self.fresh("p") for _ in range(self.random.randint(0, 3))]
        listed = [
            f"{each}={self.some(1, 'any')}" if at == len(params) - 1 and self.chance(0.3) else each
            for at, each in enumerate(params)
        ]
        variables = (*before.variables, *((each, "any") for each in params))
        self.names = replace(before, variables=variables)
        body = self.some(depth, "any")
        functions = (*before.functions, (name, len(params)))
        self.names = replace(before, functions=functions)
        return f"{name}({', '.join(listed)}) = {body}"

    # Expressions.

    def some(self, depth: int, kind: str) -> str:
        """Return an expression of a type, or sometimes of another type."""
        if kind == "any" or self.chance(_WRONG):
            kind = self.random.choice(KINDS)
        if depth > 0 and self.chance(0.35):
            return self.general(depth, kind)
        if self.chance(0.25):
            name = self.variable(kind)
            if name is not None:
                return name
        make: Make = {
            "number": Grammar.number,
            "string": Grammar.string,
            "bool": Grammar.truth,
            "array": Grammar.array,
            "object": Grammar.object,
        }[kind]
        return make(self, depth)

    def general(self, depth: int, kind: str) -> str:
        """Return an expression of any type."""
        match self.random.randint(0, 12):
            case 0 | 1:
                other = f" else {self.some(depth - 1, kind)}" if self.chance(0.85) else ""
                return f"(if {self.truth(depth - 1)} then {self.some(depth - 1, kind)}{other})"
            case 2:
                before = self.names
                text = f"({self.local(depth - 1)} {self.some(depth - 1, kind)})"
                self.names = before
                return text
            case 3 if self.names.functions:
                return self.call(depth)
            case 4:
                return f"{self.object(depth - 1)}.{self.random.choice(('a', 'b', 'c'))}"
            case 5:
                return f"{self.array(depth - 1)}[{self.random.randint(0, 2)}]"
            case 6 if self.helpers:
                return self.helped(depth)
            case 7 if self.chance(0.4):
                return f"({self.asserted(depth - 1)}; {self.some(depth - 1, kind)})"
            case 8 if self.chance(0.15):
                return f"(error {self.string(depth - 1)})"
            case 9 if self.names.self_fields:
                word = self.random.choice(("self", "self", "$"))
                return f"{word}.{self.random.choice(self.names.self_fields)}"
            case 10:
                return f"event.get({self.field()}{self.default(depth, kind)})"
            case 11 if self.names.in_object and self.chance(0.3):
                key = self.random.choice(("a", "b", "c"))
                return f"(if '{key}' in super then super.{key} else {self.some(depth - 1, kind)})"
        return self.library(depth, kind)

    def asserted(self, depth: int) -> str:
        message = f" : {self.string(depth)}" if self.chance(0.8) else ""
        return f"assert {self.truth(depth)}{message}"

    def call(self, depth: int) -> str:
        name, count = self.random.choice(self.names.functions)
        given = count if self.chance(0.9) else self.random.randint(0, 3)
        strict = " tailstrict" if self.chance(0.1) else ""
        return f"({name}({', '.join(self.some(depth - 1, 'any') for _ in range(given))}){strict})"

    def helped(self, depth: int) -> str:
        helper = f"(import {self.quoted(self.random.choice(self.helpers))})"
        key = self.random.choice(("a", "b", "c", "f", "g"))
        if key in ("f", "g"):
            return f"{helper}.{key}({self.some(depth - 1, 'any')})"
        return f"{helper}.{key}"


def helper(random: Random, name: str, others: Sequence[str]) -> str:
    """Return the text of a helper file: an object of values and functions."""
    grammar = Grammar(random, others)
    lines = []
    if name != "plain.libsonnet":
        lines.append(f"local event = import '{LIBRARY}';")
    else:
        lines.append("local event = { get(x, y=null):: y, has(x, o=null):: false };")
    values = [f"{key}: {grammar.some(2, 'any')}" for key in ("a", "b", "c")]
    grammar.names = NamesInSight(variables=(("x", "any"),))
    methods = [f"{key}(x):: {grammar.some(2, 'any')}" for key in ("f", "g")]
    return "\n".join([*lines, "{", *(f"  {member}," for member in [*values, *methods]), "}"])

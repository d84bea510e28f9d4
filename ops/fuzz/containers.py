"""A grammar of random arrays and objects."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from ops.fuzz.parts import KEYS
from ops.fuzz.scalars import Scalars


@dataclass
class Containers(Scalars):
    """A generator of expressions that yield arrays and objects."""

    @abstractmethod
    def local(self, depth: int) -> str:
        """Return a `local` binding."""

    def array(self, depth: int) -> str:
        if depth <= 0:
            return self.random.choice(("[]", "[1, 2, 3]", "['a', 'b']", "[null]", "[[1], [2]]"))
        deeper = depth - 1

        def array() -> str:
            return self.some(deeper, "array")

        match self.random.randint(0, 20):
            case 0 | 1 | 2:
                count = self.random.randint(0, 3)
                return f"[{', '.join(self.some(deeper, 'any') for _ in range(count))}]"
            case 3 | 4 | 5:
                return self.comprehension(depth)
            case 6:
                return f"({array()} + {array()})"
            case 7:
                return f"{array()}{self.slice()}"
            case 8:
                return f"std.map({self.lambda_(deeper)}, {array()})"
            case 9:
                return f"std.filter(function(x) {self.predicate(deeper)}, {array()})"
            case 10:
                return f"std.split({self.string(deeper)}, {self.string(0)})"
            case 11:
                return f"std.range({self.random.randint(0, 2)}, {self.random.randint(0, 5)})"
            case 12:
                which = self.random.choice(("objectFields", "objectValues", "objectFieldsAll"))
                return f"std.{which}({self.some(deeper, 'object')})"
            case 13:
                which = self.random.choice(("sort", "uniq", "set", "reverse", "flattenArrays"))
                return f"std.{which}({array()})"
            case 14:
                which = self.random.choice(("setUnion", "setInter", "setDiff"))
                return f"std.{which}(std.set({array()}), std.set({array()}))"
            case 15:
                return f"std.flatMap(function(x) [x, {self.some(deeper, 'any')}], {array()})"
            case 16:
                two = f"function(i, x) [i, {self.some(deeper, 'any')}]"
                return f"std.mapWithIndex({two}, {array()})"
            case 17:
                return f"std.makeArray({self.random.randint(0, 3)}, {self.lambda_(deeper)})"
            case 18:
                return f"std.find({self.some(deeper, 'any')}, {array()})"
            case 19:
                return f"std.sort({array()}, {self.lambda_(deeper)})"
        return f"std.stringChars({self.string(deeper)})"

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
        specs = self.specs(depth - 1)
        text = f"[{self.some(depth - 1, 'any')} {specs}]"
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
        deeper = depth - 1

        def anything() -> str:
            return self.some(deeper, "object")

        match self.random.randint(0, 14):
            case 0:
                return f"({anything()} + {anything()})"
            case 1:
                before = self.names
                specs = self.specs(deeper)
                key = self.random.choice((self.string(0), "'' + " + self.some(0, "number")))
                text = f"{{ [{key}]: {self.some(deeper, 'any')} {specs} }}"
                self.names = before
                return text
            case 2:
                return f"std.mapWithKey(function(k, x) {self.some(deeper, 'any')}, {anything()})"
            case 3:
                return f"std.prune({anything()})"
            case 4:
                return f"std.mergePatch({anything()}, {anything()})"
            case 5:
                return f"({anything()} {self.literal(deeper)})"
        return self.literal(depth)

    def literal(self, depth: int) -> str:
        """Return an object literal, whose fields may refer to `self` or `$`."""
        before = self.names
        members: list[str] = []
        is_rich = self.chance(0.3)
        keys = self.random.sample(KEYS, self.random.randint(0, 4))
        if is_rich:
            self.names = replace(before, in_object=True, self_fields=())
        if self.chance(0.15):
            members.append(self.local(depth - 1).removesuffix(";"))
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
        return f"{name}{colons} {self.some(depth, 'any')}"

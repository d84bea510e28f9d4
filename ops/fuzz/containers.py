"""A grammar of random arrays and objects."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from ops.fuzz.parts import KEYS
from ops.fuzz.patterns import ARRAYS, OBJECTS, OWN
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
        """Return an object literal, whose fields may refer to `self` or `$`."""
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

"""A grammar of random templates: mostly sensible, with values of a wrong type here and there.

Templates that crash rjsonnet are avoided: numbers are small, and a local never refers to itself.
Crashes that happen all the same are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from ops.fuzz.containers import Containers
from ops.fuzz.parts import HELPERS, KINDS, LIBRARY, NamesInSight

__all__ = ["HELPERS", "Grammar", "helper"]

_WRONG: Final = 0.06

Make = Callable[["Grammar", int], str]


@dataclass
class Grammar(Containers):
    """A generator of expressions of a given type and of limited depth."""

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
                message = f" : {self.string(depth - 1)}" if self.chance(0.8) else ""
                check = f"assert {self.truth(depth - 1)}{message}"
                return f"({check}; {self.some(depth - 1, kind)})"
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

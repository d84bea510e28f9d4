"""A grammar of random numbers, strings and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ops.fuzz.parts import STRINGS, Base


@dataclass
class Scalars(Base):
    """A generator of expressions that yield numbers, strings and booleans."""

    def library(self, depth: int, kind: str) -> str:
        options: dict[str, Sequence[str]] = {
            "string": (
                f"event.get({self.field()}, '')",
                "event.segSlug()",
                f"event.sha256({self.some(depth - 1, 'string')})",
                f"event.sha1({self.some(depth - 1, 'any')})",
                "event.get('segment_events')[0].event",
                f"event.enum({self.some(depth - 1, 'string')}, ['a', 'b', 'vip'], 'a')",
                f"event.jobConfGet('setting', {self.some(depth - 1, 'string')})",
                f"event.notNull(event.get({self.field()}), {self.some(depth - 1, 'any')})",
                f"event.profileFieldFromConfig('field', {self.some(depth - 1, 'any')})",
                f"event.validatedEnum('setting', ['a', 's'], {self.some(depth - 1, 'string')})",
            ),
            "bool": (
                f"event.has({self.field()})",
                f"event.has('a', {self.some(depth - 1, 'object')})",
                "event.isEnter()",
                "event.isExit()",
                f"event.inSeg({self.some(depth - 1, 'string')})",
                f"event.isValidSha1({self.some(depth - 1, 'string')})",
                "event.segEvIsEnter(event.get('segment_events')[0])",
            ),
            "number": ("event.get('age')", "event.get('age', 0)", "std.length(event.get('tags'))"),
            "array": ("event.get('tags', [])", "event.get('rows')", "event.get('_segments', [''])"),
            "object": ("event.get('map')", "event.get('segment_events')[0]", "event"),
        }
        return self.random.choice(options[kind])

    def number(self, depth: int) -> str:
        if depth <= 0 or self.chance(0.3):
            return self.random.choice(
                ("0", "1", "2", "3", "7", "10", "-1", "1.5", "0.25", "100", "-0", "1e3", "12345678")
            )
        deeper = depth - 1
        string, array = self.string, self.array

        def number() -> str:
            return self.some(deeper, "number")

        match self.random.randint(0, 16):
            case 0 | 1 | 2:
                operator = self.random.choice(("+", "-", "*", "/", "%", "+", "-"))
                return f"({number()} {operator} {number()})"
            case 3:
                return f"(-{number()})"
            case 4:
                return f"std.length({self.some(deeper, 'any')})"
            case 5:
                function = self.random.choice(
                    ("abs", "sign", "floor", "ceil", "round", "sqrt", "isEven")
                )
                return f"std.{function}({number()})"
            case 6:
                function = self.random.choice(("max", "min", "pow"))
                return f"std.{function}({number()}, {number()})"
            case 7:
                return f"std.parseInt({string(deeper)})"
            case 8:
                return f"std.codepoint({string(deeper)})"
            case 9:
                return f"std.foldl(function(x, y) x + y, {array(deeper)}, {number()})"
            case 10:
                return f"std.count({array(deeper)}, {self.some(deeper, 'any')})"
            case 11:
                return f"std.clamp({number()}, {number()}, {number()})"
            case 12:
                return f"std.foldr(function(x, y) x - y, {array(deeper)}, {number()})"
            case 13:
                return f"std.sum({array(deeper)})"
            case 14:
                which = self.random.choice(("minArray", "maxArray"))
                return f"std.{which}({array(deeper)})"
            case 15:
                return f"std.parseHex({string(deeper)})"
        return f"std.modulo({number()}, {number()})"

    def string(self, depth: int) -> str:
        if depth <= 0 or self.chance(0.3):
            if self.chance(0.05):
                return self.block()
            return self.quoted(self.random.choice(STRINGS))
        deeper = depth - 1

        def string() -> str:
            return self.some(deeper, "string")

        def anything() -> str:
            return self.some(deeper, "any")

        match self.random.randint(0, 20):
            case 0 | 1:
                return f"({string()} + {anything()})"
            case 2:
                return f"({anything()} + {string()})"
            case 3:
                return f"std.toString({anything()})"
            case 4:
                function = self.random.choice(("asciiUpper", "asciiLower", "trim", "md5", "sha256"))
                return f"std.{function}({string()})"
            case 5:
                return f"std.substr({string()}, {self.number(0)}, {self.number(0)})"
            case 6:
                return f"std.join({string()}, {self.array(deeper)})"
            case 7:
                return f"std.strReplace({string()}, {string()}, {string()})"
            case 8 | 9:
                return self.format(deeper)
            case 10:
                strip = self.random.choice(("stripChars", "lstripChars", "rstripChars"))
                return f"std.{strip}({string()}, {string()})"
            case 11:
                return f"{string()}[{self.number(0)}]"
            case 12:
                return f"{string()}{self.slice()}"
            case 13:
                return f"std.type({anything()})"
            case 14:
                return f"std.manifestJsonMinified({anything()})"
            case 15:
                return f"std.escapeStringJson({string()})"
            case 16:
                return f"std.char({self.random.choice(('65', '97', '233', '128512', '10'))})"
            case 17:
                return f"std.repeat({string()}, {self.random.randint(0, 3)})"
            case 18:
                return f"std.lines({self.array(deeper)})"
            case 19:
                return f"std.manifestJsonEx({anything()}, '  ')"
        return f"std.base64({string()})"

    def format(self, depth: int) -> str:
        codes = ("%s", "%s", "%d", "%i", "%5s", "%-5s|", "%03d", "%+d", "% d", "%c", "%%", "%x")
        used = [self.random.choice(codes) for _ in range(self.random.randint(1, 3))]
        values = [
            self.some(depth, "number" if code[-1] in "dix" else "string")
            for code in used
            if code != "%%"
        ]
        text = " ".join(used)
        if self.chance(0.15):
            return f"('%(a)s and %(b)d' % {self.object(depth)})"
        if len(values) == 1 and self.chance(0.5):
            return f"('{text}' % {values[0]})"
        listed = f"[{', '.join(values)}]"
        return self.random.choice((f"('{text}' % {listed})", f"std.format('{text}', {listed})"))

    def truth(self, depth: int) -> str:
        if depth <= 0 or self.chance(0.15):
            return self.random.choice(("true", "false"))
        deeper = depth - 1

        def anything() -> str:
            return self.some(deeper, "any")

        match self.random.randint(0, 17):
            case 0 | 1:
                operator = self.random.choice(("==", "!="))
                return f"({anything()} {operator} {anything()})"
            case 2 | 3:
                kind = self.random.choice(("number", "string"))
                operator = self.random.choice(("<", ">", "<=", ">="))
                return f"({self.some(deeper, kind)} {operator} {self.some(deeper, kind)})"
            case 4 | 5:
                operator = self.random.choice(("&&", "||"))
                return f"({self.some(deeper, 'bool')} {operator} {self.some(deeper, 'bool')})"
            case 6:
                return f"(!{self.some(deeper, 'bool')})"
            case 7:
                return f"({self.string(0)} in {self.some(deeper, 'object')})"
            case 8:
                return f"std.member({self.some(deeper, 'array')}, {anything()})"
            case 9:
                check = self.random.choice(("startsWith", "endsWith", "equalsIgnoreCase"))
                return f"std.{check}({self.string(deeper)}, {self.string(0)})"
            case 10:
                kinds = ("String", "Number", "Boolean", "Object", "Array", "Function")
                return f"std.is{self.random.choice(kinds)}({anything()})"
            case 11:
                has = self.random.choice(("objectHas", "objectHasAll"))
                return f"std.{has}({self.object(deeper)}, {self.string(0)})"
            case 12:
                return f"std.isEmpty({self.string(deeper)})"
            case 13:
                which = self.random.choice(("all", "any"))
                item = self.some(deeper, "bool")
                return f"std.{which}([{item}, {self.some(deeper, 'bool')}])"
            case 14:
                constant = self.random.choice(
                    ("null", "true", self.quoted(self.random.choice(STRINGS)), "1")
                )
                return f"({anything()} == {constant})"
            case 15:
                return f"std.setMember({self.string(0)}, std.set({self.array(deeper)}))"
        return self.library(depth, "bool")

"""A grammar of random numbers, strings and conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ops.fuzz.parts import STRINGS, Base
from ops.fuzz.patterns import CONDITIONS, LIBRARY_CALLS, NUMBERS
from ops.fuzz.patterns import STRINGS as STRING_PATTERNS

_CODES: Final = (
    *("%s", "%s", "%d", "%i", "%5s", "%-5s|", "%03d", "%+d", "% d", "%c", "%%", "%x", "%X", "%#x"),
    *("%o", "%.3d", "%08x"),
)
_FRACTION_CODES: Final = (
    *("%.1f", "%.0f", "%f", "%7.2f", "%-7.1f|", "%+.1f", "%07.1f", "%g", "%.3g", "%#g", "%e"),
    *("%.2E", "%s", "%d"),
)


@dataclass
class Scalars(Base):
    """A generator of expressions that yield numbers, strings and booleans."""

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

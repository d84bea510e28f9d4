"""Logarithms that come out the same in go-jsonnet and in the reference implementation.

Go and the C library differ in the last digit of some. Both are computed, and where they differ
Jsonnet is asked.
"""

from __future__ import annotations

import math
import sys
from typing import Final

from worker.jsonnet.compiled.running.limits import Doubtful

_HIGH: Final = 6.93147180369123816490e-01
_LOW: Final = 1.90821492927058770002e-10
_SERIES: Final = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
"""Coefficients of FreeBSD's `e_log.c`, which Go's `math.Log` follows."""


def natural_logarithm(value: float) -> float:
    """Return the natural logarithm; raise `Doubtful` if the engines' libraries differ."""
    result = math.log(value)
    if result != _by_go(value):
        raise Doubtful
    return result


def decimal_exponent(value: float) -> int:
    """Return the power of ten below a number, as the formats of Jsonnet compute it."""
    magnitude = abs(float(value))
    if not magnitude:
        return 0
    exponent = math.floor(math.log(magnitude) / math.log(10))
    if exponent != math.floor(_by_go(magnitude) / _by_go(10.0)):
        raise Doubtful
    return exponent


def _by_go(value: float) -> float:
    if not sys.float_info.min <= value < math.inf:
        raise Doubtful
    fraction, exponent = math.frexp(value)
    if fraction < math.sqrt(2) / 2:
        fraction *= 2
        exponent -= 1
    f = fraction - 1
    s = f / (2 + f)
    s2 = s * s
    s4 = s2 * s2
    l1, l2, l3, l4, l5, l6, l7 = _SERIES
    t1 = s2 * (l1 + s4 * (l3 + s4 * (l5 + s4 * l7)))
    t2 = s4 * (l2 + s4 * (l4 + s4 * l6))
    half = 0.5 * f * f
    return exponent * _HIGH - ((half - (s * (half + (t1 + t2)) + exponent * _LOW)) - f)

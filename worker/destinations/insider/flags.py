"""One boolean attribute for each audience: the membership model without a list.

What such an attribute is called is a rule that `insider.libsonnet` follows too (`audienceFlag`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from worker.contract.events import Header
from worker.destinations.api import ShapingRules

_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_]")
_CAPITALS: Final = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@lru_cache(maxsize=1_024)
def flag_name(prefix: str, slug: str) -> str:
    """Return the attribute of an audience: what no name may hold becomes `_`."""
    return prefix + _NOT_IN_A_NAME.sub("_", slug.translate(_CAPITALS))


def flag_of(custom: Mapping[str, Any], header: Header, rules: ShapingRules) -> dict[str, Any]:
    """Return what custom attributes say of the event's own audience; empty if nothing."""
    name = flag_name(rules.audience_flag_prefix, header.audience)
    value = custom.get(name)
    return {name: value} if type(value) is bool else {}

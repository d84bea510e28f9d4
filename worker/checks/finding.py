"""A finding of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the owner of a template or trigger should know.

    Args:
        severity: An error makes a template unfit and stops its triggers; a warning is worth a look.
        message: What is wrong and what to do; begins with the place where there is one.
        trigger: "" where it is about a template as such.
        file: "" where it is about no place.
        line: 1-based, 0 for none.
        column: 1-based, 0 for none.
    """

    severity: Severity
    message: str
    trigger: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

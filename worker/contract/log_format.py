"""The two forms of a log, and the variable of the environment that chooses one."""

from __future__ import annotations

from typing import Final

FORMAT_VARIABLE: Final = "SEGRELAY_LOG_FORMAT"
"""`json` or `text`; without it, text is for terminals."""
JSON: Final = "json"
TEXT: Final = "text"

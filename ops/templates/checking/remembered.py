"""The last checks of templates, kept in a file beside the embedded Redis."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

_NAME: Final = "template-checks.json"


@dataclass(frozen=True, slots=True)
class LastCheck:
    """The last check of a template.

    Args:
        content_hash: The hash of the checked template; "" = it did not load.
        at_ms: The time of the check, since 1970.
    """

    content_hash: str
    fit: bool
    warnings: int
    at_ms: int


class RememberedChecks:
    """The last checks of all templates.

    Args:
        data_dir: The configured directory; None = nothing is remembered.
    """

    def __init__(self, data_dir: Path | None) -> None:
        self._path = data_dir / _NAME if data_dir else None

    def read(self) -> dict[str, LastCheck]:
        """Return the last checks by template; a file that can't be read holds none."""
        if self._path is None:
            return {}
        try:
            document = orjson.loads(self._path.read_bytes())
            return {name: LastCheck(**each) for name, each in document.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def write(self, checks: Mapping[str, LastCheck]) -> None:
        """Remember these checks; nothing is remembered if the folder can't be written."""
        if self._path is None:
            return
        both = {name: asdict(each) for name, each in {**self.read(), **checks}.items()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(orjson.dumps(both, option=orjson.OPT_INDENT_2))
        except OSError:
            return


def now_ms() -> int:
    """Return the present time in ms since 1970."""
    return time.time_ns() // 1_000_000

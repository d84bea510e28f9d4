"""The table of the generated pages by their file names in `docs/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ops.reference.commands import commands_page
from ops.reference.configuration import configuration_page
from ops.templates.library import library_page

FOLDER: Final = Path(__file__).parents[2] / "docs"


def pages() -> Mapping[str, str]:
    """Return the texts of all pages by file name."""
    return {
        "configuration.md": configuration_page(),
        "commands.md": commands_page(),
        "library.md": library_page(),
    }

"""Writes the README of a package: a page on a registry has no folder that its links lead into.

With `SEGRELAY_REPOSITORY` in the environment of the build (where the repository can be read, e.g.
https://git.example.com/acme/segrelay), links lead to this version there. Without it the page keeps
the words of a link alone, says the file's name, and leaves pictures out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")
_VARIABLE = "SEGRELAY_REPOSITORY"


def packaged(readme: str, version: str, repository: str) -> str:
    """Return the README as it can be read apart from its repository.

    Args:
        readme: The file's text.
        version: The version that is built; the repository has a tag `vVERSION`.
        repository: The address of the repository; "" = it has none.
    """

    def rewritten(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        if repository:
            kind = "raw" if picture else "blob"
            return f"{picture}[{words}]({repository.rstrip('/')}/{kind}/v{version}/{target})"
        if picture:
            return ""
        path = target.partition("#")[0]
        return f"{words} (`{path}`)"

    return _LINK.sub(rewritten, readme)


class ReadmeHook(MetadataHookInterface):
    """Puts the rewritten README into the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the fields that pyproject.toml calls dynamic."""
        repository = os.environ.get(_VARIABLE, "")
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": packaged(text, metadata["version"], repository),
        }
        if repository:
            metadata["urls"] = {"Repository": repository}

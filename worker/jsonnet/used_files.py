"""`UsedFiles`: digests of the files that templates use, by which workers are compared.

Files are not parsed for it: every text that looks like an import counts, so that a library of
templates is read in milliseconds. The shipped library belongs to a version of segrelay and is left
out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_IMPORT: Final = re.compile(rb"""\bimport(?:str|bin)?\s*["']([^"']+)["']""")
_NAME: Final = re.compile(r'"([^"]+)"')
_DIGEST_CHARACTERS: Final = 8

FolderStamp = frozenset[tuple[str, int, int, int]]
"""Path, time of change, size and inode of each file of a folder."""


def stamp_of(folder: Path) -> FolderStamp:
    """Return a stamp that changes whenever a file of the folder does."""
    found = set()
    for path in folder.rglob("*"):
        try:
            state = path.stat()
        except OSError:
            continue
        found.add((str(path), state.st_mtime_ns, state.st_size, state.st_ino))
    return frozenset(found)


class UsedFiles:
    """Digests of the files of a folder that templates use, renewed when the folder changes.

    Args:
        templates: Names of templates; one that is a JSON object names several.
    """

    def __init__(self, folder: Path, templates: Iterable[str]) -> None:
        self._folder = folder
        self._roots = sorted({part for name in templates for part in _parts(name)})
        self._stamp: FolderStamp | None = None
        self._digests: dict[str, str] = {}

    def digests(self) -> Mapping[str, str]:
        """Return the digest of each file, by its path in the folder."""
        stamp = stamp_of(self._folder)
        if stamp != self._stamp:
            self._digests, self._stamp = self._read(), stamp
        return self._digests

    def _read(self) -> dict[str, str]:
        folder, found = self._folder.resolve(), dict[str, str]()
        waiting = [folder / name for name in self._roots]
        while waiting:
            try:
                path = waiting.pop().resolve()
                if not path.is_relative_to(folder):
                    continue
                name, text = path.relative_to(folder).as_posix(), path.read_bytes()
            except (OSError, ValueError):  # it is not there, or no path at all
                continue
            if name in found:
                continue
            found[name] = hashlib.sha256(text).hexdigest()[:_DIGEST_CHARACTERS]
            for imported in _IMPORT.findall(text):
                target = imported.decode(errors="replace")
                waiting += [path.parent / target, folder / target]
        return dict(sorted(found.items()))


def _parts(template: str) -> list[str]:
    return _NAME.findall(template) if template.startswith("{") else [template]

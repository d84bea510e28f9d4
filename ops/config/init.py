"""`segrelay init`: a first configuration with its templates."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final

import typer

from ops.terminal.console import say
from worker.checks.samples import fresh_sample
from worker.contract.words import Direction
from worker.errors import UsageWrong

_SCAFFOLD: Final = {"segrelay.toml": "segrelay.toml", ".env.example": "env.example"}
"""The name of each file to write → its name in the package, where no name begins with a dot."""

_PRIVATE: Final = 0o600
"""The mode of `.env.example`: a copy of it will hold secrets, and keeps this mode."""
_READABLE: Final = 0o666
_TEMPLATES: Final = ("http", "insider")


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder; it is made if it is not there.")
    ],
) -> None:
    """Write a commented segrelay.toml, an .env.example, templates and samples into a folder.

    Nothing that is there already is overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageWrong(f"{folder} is a file; name a folder.")
    for path, content in _files():
        mode = _PRIVATE if path.name.startswith(".env") else _READABLE
        say(f"{_write(folder / path, content, mode)} {folder / path}")
    say("Next, with the credentials filled into .env in between:")
    say(f"  cd {shlex.quote(str(folder))} && cp .env.example .env")
    say("  segrelay config check")


def _files() -> Iterator[tuple[Path, bytes]]:
    scaffold = files("ops.config") / "scaffold"
    for name, packaged in _SCAFFOLD.items():
        yield Path(name), (scaffold / packaged).read_bytes()
    for folder in _TEMPLATES:
        for template in _shipped_templates(folder):
            yield Path("templates", folder, template.name), template.read_bytes()
    now = datetime.now(UTC)
    for direction in (Direction.ENTER, Direction.EXIT):
        yield Path("samples", f"{direction.value}.json"), fresh_sample(direction, now).encode()


def _shipped_templates(folder: str) -> list[Traversable]:
    found = [
        one for one in (files("templates") / folder).iterdir() if one.name.endswith(".jsonnet")
    ]
    return sorted(found, key=lambda one: one.name)


def _write(path: Path, content: bytes, mode: int) -> str:
    """Write a file unless it exists, and print what was done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
    except FileExistsError:
        return "kept   "
    return "written"

"""A template in the working folder, or in a revision of git."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.templates.workspace import full_name
from worker.errors import UsageWrong


@dataclass(frozen=True, slots=True)
class Revision:
    """One side of a comparison.

    Args:
        said: The name that was typed.
        folder: The templates folder as it is, or was.
    """

    said: str
    folder: Path
    template: str


@contextmanager
def version(text: str, folder: Path, other: str = "") -> Iterator[Revision]:
    """Open the named version: a template, `REVISION:TEMPLATE`, or a revision alone.

    A revision alone means the template of the other side.
    """
    revision, colon, name = text.rpartition(":")
    if colon:
        with _checked_out(revision, folder) as old:
            yield _existing(text, old, name)
    elif (folder / full_name(text)).is_file():
        yield Revision(text, folder, full_name(text))
    elif other and (folder / full_name(other.rpartition(":")[2])).is_file():
        with _checked_out(text, folder) as old:
            yield _existing(text, old, other.rpartition(":")[2])
    else:
        raise UsageWrong(
            f"{text}: there is no such template in {folder}; name one below that folder, or"
            " REVISION:TEMPLATE for one of git's revisions."
        )


def _existing(said: str, folder: Path, name: str) -> Revision:
    if not (folder / full_name(name)).is_file():
        raise UsageWrong(f"{said}: that revision has no {full_name(name)}.")
    return Revision(said, folder, full_name(name))


@contextmanager
def _checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """Yield the templates folder of a revision; the working tree is not changed."""
    command = ["git", "-C", str(folder), "archive", "--format=tar", revision]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UsageWrong("git is not installed here, and a revision was named.") from error
    if done.returncode or revision.startswith("-"):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageWrong(f"{revision}: git knows no such revision ({' '.join(said[:1])}).")
    with tempfile.TemporaryDirectory() as name:
        try:
            with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
                archive.extractall(name, filter="data")
        except tarfile.ReadError as error:  # git's archive of an empty folder is empty
            raise UsageWrong(
                f"{revision}: that revision of git has nothing in {folder}; commit the templates"
                " first, or name two files."
            ) from error
        yield Path(name)

"""The files by which everybody finds the embedded Redis of a data directory.

The server inherits the lock of the one who starts it and holds it as long as it lives, so that the
lock says whether one runs over the directory, after a crash and a reboot too. No process id does.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ANY_SANDBOX: Final = "1"
"""In place of the URL of a sandbox, where it is not known or is the default."""


@dataclass(frozen=True, slots=True)
class EmbeddedFiles:
    """The names of the files in a data directory."""

    data_dir: Path

    @property
    def lock(self) -> Path:
        """The lock file: locked while a server runs or is being started; never removed."""
        return self.data_dir / "redis.lock"

    @property
    def rehearsal(self) -> Path:
        """The lock file of `segrelay up --sandbox`, with the URL of its sandbox; never removed.

        The server's lock would not do: the server outlives an `up` that is killed.
        """
        return self.data_dir / "rehearsal.lock"

    @property
    def url(self) -> Path:
        """The file with the URL and its password, readable by its owner alone."""
        return self.data_dir / "redis.url"

    @property
    def config(self) -> Path:
        """The configuration file of the embedded server, readable by its owner alone."""
        return self.data_dir / "redis.conf"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data_dir / "redis.log"

    @property
    def pid(self) -> Path:
        """The server's process id, written by the server."""
        return self.data_dir / "redis.pid"

    def read_url(self) -> str:
        """Return the URL that was last in use; empty where none was yet."""
        try:
            return self.url.read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return ""

    def is_locked(self) -> bool:
        """Say whether a server runs over the directory, or is being started."""
        return _is_locked(self.lock)

    def rehearsed_at(self) -> str:
        """Return the URL of the sandbox of the rehearsal that runs over the directory, or ""."""
        try:
            if not _is_locked(self.rehearsal):
                return ""
            return self.rehearsal.read_text(encoding="ascii").strip() or ANY_SANDBOX
        except PermissionError:  # the directory of another user, who rehearses alone
            return ""


def _is_locked(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

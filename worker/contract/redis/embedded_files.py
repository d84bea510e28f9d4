"""The files by which everybody finds the embedded Redis of a data directory.

The server inherits the lock of the one who starts it and holds it as long as it lives, so that the
lock says whether one runs over the directory, after a crash and a reboot too. No process id does.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EmbeddedFiles:
    """The names of the files in a data directory."""

    data_dir: Path

    @property
    def lock(self) -> Path:
        """The lock file: locked while a server runs or is being started; never removed."""
        return self.data_dir / "redis.lock"

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
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

"""The state of a file, to notice that it was rewritten while it was read.

Size and time of modification are compared, and the number of the file: another file of the same
name is another file. What was read of a file that changed may be half of the old content and half
of the new one.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple, Self


class FileState(NamedTuple):
    """The identity of a file's content at one moment: inode, size and modification time."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, file: str | os.PathLike[str] | int) -> Self | None:
        """Return the state of a path or an open descriptor; None where it is no regular file."""
        try:
            found = os.stat(file)  # noqa: PTH116 - a descriptor has no Path
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

"""Files with people's data, which only their owner may read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_MODE = 0o600


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing with mode 0600, also if it exists with another mode.

    Raises:
        OSError: It can't be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe or terminal stays as it is
            os.fchmod(descriptor, _MODE)
            file.truncate()
        yield file

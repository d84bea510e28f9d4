"""Files without a name: memory that forked processes share, with locks that the kernel keeps."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def unnamed_file() -> int:
    """Return the descriptor of a new file, which is gone with the last process that has it open."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Lock a file against other processes; the kernel unlocks it if the holder dies.

    Locks do not nest: the inner one would end the outer one.
    """
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


def read_all(descriptor: int) -> str:
    """Return the content of the shared memory."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


def write_all(descriptor: int, text: str) -> None:
    """Replace the content of the shared memory; a reader without a lock may get a part of it."""
    content = text.encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)

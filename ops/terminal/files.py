"""Files that commands read as JSON, and files with people's data that only their owner may read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from worker.errors import UsageWrong

_MODE: Final = 0o600


@contextmanager
def private_file(path: Path, *, must_be_new: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing with mode 0600, also if it exists with another mode.

    Raises:
        OSError: It can't be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if must_be_new else 0)
    try:
        descriptor = os.open(path, flags, _MODE)
    except FileExistsError:
        raise UsageWrong(f"{path}: is there already; name a new file.") from None
    with os.fdopen(descriptor, "wb") as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe or terminal stays as it is
            os.fchmod(descriptor, _MODE)
            file.truncate()
        yield file


def read_json(path: Path) -> Any:
    """Return the JSON of a file."""
    return _parsed(path, _content(path))


def read_json_values(path: Path) -> list[Any]:
    """Return the values of a file: one, an array of them, or one a line."""
    content = _content(path)
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        lines = [line for line in content.splitlines() if line.strip()]
        if len(lines) < 2:  # noqa: PLR2004 - of one line the whole was tried
            return [_parsed(path, content)]
        return [_parsed(path, line, number) for number, line in enumerate(lines, 1)]
    return value if isinstance(value, list) else [value]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageWrong(f"{path}: can't be read ({error.strerror}).") from error


def _parsed(path: Path, text: bytes, line: int = 0) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        at = f"{line}" if line else f"{error.lineno}:{error.colno}"
        raise UsageWrong(f"{path}:{at}: is not JSON ({error.msg}).") from error

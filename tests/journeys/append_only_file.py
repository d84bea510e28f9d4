"""Reads Redis' append-only file: each command that ever wrote, also what is gone by now."""

from pathlib import Path

import hiredis


def commands_of(data_dir: Path) -> list[list[bytes]]:
    """Return the words of all commands, in their order; the last one may not be written whole."""
    files = sorted(data_dir.rglob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
    return [words for path in files for words in _parsed(path.read_bytes())]


def _parsed(text: bytes) -> list[list[bytes]]:
    reader = hiredis.Reader()
    reader.feed(text)
    return list(iter(reader.gets, False))

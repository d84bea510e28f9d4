"""Reads Redis' append-only file: each command that ever wrote, also what is gone by now."""

from pathlib import Path


def commands_of(data_dir: Path) -> list[list[bytes]]:
    """Return the words of all commands, in their order."""
    files = sorted(data_dir.rglob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
    return [words for path in files for words in _parsed(path.read_bytes())]


def _parsed(text: bytes) -> list[list[bytes]]:
    found, at = [], 0
    while (end := text.find(b"\r\n", at)) >= 0:
        line, at = text[at:end], end + 2
        if line.startswith(b"*"):
            words = []
            for _ in range(int(line[1:])):
                end = text.find(b"\r\n", at)
                if end < 0:  # Redis is about to write the rest
                    return found
                size, at = int(text[at + 1 : end]), end + 2
                words.append(text[at : at + size])
                at += size + 2
            found.append(words)
    return found

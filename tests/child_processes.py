"""Processes that others have started."""

from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Return the children of a process; none if it has ended."""
    try:
        listed = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for text in listed for child in text.split()]


def with_descendants(pid: int) -> list[int]:
    """Return a process and all that it and its children have started."""
    found = [pid]
    for each in found:
        found += children_of(each)
    return found


def command_of(pid: int) -> bytes:
    """Return the words of a process' command; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def lives(pid: int) -> bool:
    """Say whether there is still a process."""
    return Path(f"/proc/{pid}/stat").exists()

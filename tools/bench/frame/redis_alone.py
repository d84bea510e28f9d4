"""A configuration and an embedded Redis for benchmarks that need no workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis import Redis

from segrelay.ops.embedded.lifecycle import ensure_running, stop
from segrelay.templates import SHIPPED_FOLDER
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import Settings, load_settings

DESTINATION: Final = """
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
rate = "25000/min"
"""
_TEMPLATES: Final = 'templates = "{folder}"\n'
_REMEMBERS: Final = '\n[delivery]\nledger_retention = "3650d"\n'
"""The events of benchmarks are of a day that is written down."""


def audiences_of(triggers: int) -> list[str]:
    """Return the names of the audiences for a number of triggers; two triggers share one."""
    return [f"audience-{number:03}" for number in range(triggers // 2)]


@dataclass(frozen=True, slots=True)
class RedisAlone:
    """An embedded Redis and its configuration, for the duration of a benchmark.

    Args:
        folder: Holds the configuration and Redis' files; removed afterwards.
    """

    folder: Path
    settings: Settings
    client: Redis


@contextmanager
def redis_alone(tables: str = "") -> Iterator[RedisAlone]:
    """Start an embedded Redis in a temporary folder, with a configuration that has these tables."""
    with tempfile.TemporaryDirectory(prefix="segrelay-bench-") as name:
        path = Path(name) / "segrelay.toml"
        text = _TEMPLATES.format(folder=SHIPPED_FOLDER) + tables + _REMEMBERS
        path.write_text(text, encoding="utf-8")
        settings = load_settings(path, environ={})
        data_dir = settings.redis.data_dir
        try:
            with closing(connect(ensure_running(data_dir).url)) as client:
                yield RedisAlone(path.parent, settings, client)
        finally:
            stop(data_dir)


def used_memory(client: Redis) -> int:
    """Return the bytes of memory that Redis uses."""
    found: Any = client.info("memory")
    return int(found["used_memory"])


def redis_seconds(client: Redis) -> float:
    """Return the processor time that Redis has used."""
    used: Any = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def processor_seconds_of(pid: int) -> float:
    """Return the processor time that a process has used; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

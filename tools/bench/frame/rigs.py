"""A whole segrelay in a temporary folder, and the steps that benchmarks do with it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from segrelay.ops.demo.rig import Rig
from segrelay.ops.terminal.moments import awaited
from segrelay.worker.errors import OperationsMustAct

_WORKERS: Final = 2
_PROCESSES: Final = 2
_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.01


@contextmanager
def bench_rig(**options: Any) -> Iterator[Rig]:
    """Run a rig with two triggers in a folder that is removed afterwards; see `Rig`."""
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        Rig(Path(folder), **{"exit_events": False, **options}) as rig,
    ):
        yield rig


def start_workers(rig: Rig, workers: int = _WORKERS, processes: int = _PROCESSES) -> None:
    """Start workers, and wait until all are ready.

    Raises:
        OperationsMustAct: One does not start.
    """
    first = len(rig.workers)
    for _ in range(workers):
        rig.start_worker(f"--concurrency={processes}")
    rig.wait_until_ready(_START_SECONDS, since=first)


def send(rig: Rig, payloads: Iterable[bytes]) -> float:
    """Accept payloads with `segrelay send`, and return the seconds that it took."""
    source = rig.folder / "events.ndjson"
    with source.open("wb") as file:
        file.writelines(payload + b"\n" for payload in payloads)
    begun = time.monotonic()
    sent = rig.command("send", str(source), "--json", timeout=600)
    if sent.returncode:
        raise OperationsMustAct(sent.stderr.decode())
    return time.monotonic() - begun


def requests_of(rig: Rig) -> int:
    """Return the number of requests that the sandbox has received."""
    return int(rig.sandbox.get("summary")["requests"]["total"])


def wait_until(is_true: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Wait until a condition holds."""
    if not awaited(is_true, seconds, _LOOK_SECONDS):
        raise OperationsMustAct(otherwise)

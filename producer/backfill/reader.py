"""A process that reads one job of a watch: `JobReader` starts this module.

It ends with the reading, or soon after the other process has ended, which its standard input tells.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.backfill.reading import prepare_shards, read_job
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import Settings, load_settings
from segrelay.worker.errors import SegrelayError
from segrelay.worker.logs import configure, log_bug

LOG: Final = structlog.get_logger()
_LAST_SECONDS: Final = 10.0
"""The seconds within which a reader has ended after the process that started it."""
_INPUT: Final = 0


class JobReader:
    """A process that reads a job; it ends when this object is gone, or the process that has it."""

    def __init__(self, settings: Settings, job: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            own_module(__name__, str(settings.source), job),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    def is_reading(self) -> bool:
        """Say whether the process runs."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the reading, and wait until the process has ended; the job can go on later."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def read(config: Path, name: str) -> None:
    """Read a job to its end, or until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    configure(logging.INFO)
    ends = threading.Event()
    prepare_shards()
    threading.Thread(target=_hear, args=(ends,), daemon=True).start()
    try:
        settings = load_settings(config)
        redis = settings.redis
        with closing(connect(resolve_url(redis), replicas=redis.replicas)) as client:
            store = JobStore(client)
            job = store.named(name)
            read_job(store, job, settings, lambda *_: None, is_told_to_stop=ends.is_set)
    except SegrelayError as error:
        LOG.warning("backfill.reading_ended", job=name, reason=error.message)
    except Exception as error:  # noqa: BLE001 - this is the edge; its message may hold a profile
        log_bug(error, "backfill.reading_failed", job=name)


def _hear(ends: threading.Event) -> None:
    """End this process soon after standard input has ended.

    What it has not published by then is read again when the job goes on.
    """
    while os.read(_INPUT, 1):  # sys.stdin has a lock; a process that holds it can't end
        pass
    ends.set()
    time.sleep(_LAST_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    read(Path(sys.argv[1]), sys.argv[2])

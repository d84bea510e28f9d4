"""A process that reads jobs, one after the other: `JobReader` starts this module.

Its standard input is a socket over which the other process names the jobs, a line each. A line goes
back for each job that it has ended with, and it ends when the other process does.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
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
_IDLE_SECONDS: Final = 10.0
"""The seconds after which a reader without a job ends: it has the memory of a small worker."""
_ANSWER_BYTES: Final = 4_096
_INPUT: Final = 0
_END: Final = ""
"""In the place of a job: none comes after it."""


class JobReader:
    """A process that reads jobs; it ends when this object is gone, or the process that has it.

    It also ends when it has had nothing to read for some seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self.config: Final = settings.source
        self._given = self._ended = 0
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                own_module(__name__, str(settings.source)),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
            )
        self._socket.settimeout(0)

    def read(self, job: str) -> Callable[[], bool]:
        """Have a job read to its end, after those given before; say whether it still is read."""
        self._given += 1
        with suppress(OSError):  # it has ended: so has the reading, which says so
            self._socket.sendall(job.encode() + b"\n")
        return partial(self._has_yet_to_end, self._given)

    def is_alive(self) -> bool:
        """Say whether the process runs."""
        return self._process.poll() is None

    def is_idle(self) -> bool:
        """Say whether it has nothing to read, and could read another job at once."""
        return self.is_alive() and not self._has_yet_to_end(self._given)

    def _has_yet_to_end(self, number: int) -> bool:
        """Say whether it still has to end with the job that was given as this one, from 1 on."""
        with suppress(OSError):
            while answers := self._socket.recv(_ANSWER_BYTES):
                self._ended += len(answers)
        return number > self._ended and self.is_alive()

    def end(self) -> None:
        """End the reading, and wait until the process has ended; the job can go on later."""
        self._socket.close()
        self._process.wait()


def read_jobs(config: Path) -> None:
    """Read the jobs that are named on standard input, until that ends or none comes any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    configure(logging.INFO)
    ends = threading.Event()
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    prepare_shards()
    threading.Thread(target=_hear, args=(jobs, ends), daemon=True).start()
    with suppress(queue.Empty):
        while (name := jobs.get(timeout=_IDLE_SECONDS)) != _END:
            _read(config, name, ends.is_set)
            with suppress(OSError):  # nobody is there to be told
                os.write(_INPUT, b"\n")


def _read(config: Path, name: str, is_told_to_stop: Callable[[], bool]) -> None:
    """Read a job to its end, by the configuration as it is now."""
    try:
        settings = load_settings(config)
        redis = settings.redis
        with closing(connect(resolve_url(redis), replicas=redis.replicas)) as client:
            store = JobStore(client)
            job = store.named(name)
            read_job(store, job, settings, lambda *_: None, is_told_to_stop=is_told_to_stop)
    except SegrelayError as error:
        LOG.warning("backfill.reading_ended", job=name, reason=error.message)
    except Exception as error:  # noqa: BLE001 - this is the edge; its message may hold a profile
        log_bug(error, "backfill.reading_failed", job=name)


def _hear(jobs: queue.SimpleQueue[str], ends: threading.Event) -> None:
    """Pass on the jobs that are named, and end this process soon after standard input has ended.

    What it has not published by then is read again when the job goes on.
    """
    rest = b""
    # sys.stdin has a lock; a process that holds it can't end.
    while heard := os.read(_INPUT, _ANSWER_BYTES):
        *names, rest = (rest + heard).split(b"\n")
        for name in names:
            jobs.put(name.decode())
    ends.set()
    jobs.put(_END)
    time.sleep(_LAST_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    read_jobs(Path(sys.argv[1]))

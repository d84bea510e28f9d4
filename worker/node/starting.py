"""The start of a worker, before any process is forked."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any, Final, NoReturn

import structlog
from celery import bootsteps
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.solo import TaskPool as Solo

from worker.adapters.redis.addresses import note_addresses, rename_hint, shut_renamed
from worker.contract.printable import LAYOUT, printable
from worker.contract.redis.claim import claim
from worker.contract.redis.connection import connect, resolve_url, wait_ready
from worker.contract.settings import Settings
from worker.errors import SegrelayError, UsageWrong

LOG: Final = structlog.get_logger()


class StartingStep(bootsteps.Step):  # type: ignore[misc] # Celery is not typed
    """Checks Redis, and makes the state that the processes share; a step of Celery's worker."""

    name = "Starting"
    requires = ("celery.worker.components:Pool",)
    conditional = False

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        try:
            _refuse_other_pools(worker)
            check_redis(worker.app.segrelay.settings)
        except SegrelayError as error:
            refuse(error)
        worker.app.segrelay.begin(worker.max_concurrency or worker.concurrency)


def check_redis(settings: Settings) -> None:
    """Wait for Redis, claim it, and warn if its settings keep less than we promise.

    Raises:
        RedisUnavailable: It was not ready in time.
        RedisMismatch: It can't be used with this configuration.
    """
    url = resolve_url(settings.redis)
    for warning in wait_ready(url, replicas=settings.redis.replicas):
        LOG.warning("redis.weak", message=warning)
    with closing(connect(url)) as client:
        claim(client, settings)
        for new, old in shut_renamed(client, settings).items():
            LOG.warning("destination.renamed", message=rename_hint(old, new))
        note_addresses(client, settings)


def refuse(error: SegrelayError) -> NoReturn:
    """End this process with a message and its exit code, without a traceback."""
    sys.stderr.write(printable(error.message, keep=LAYOUT) + "\n")
    raise SystemExit(error.exit_code) from None


def _refuse_other_pools(worker: Any) -> None:
    """Refuse pools of threads: a drain uses the signals, event loop and slots of its process."""
    if not issubclass(worker.pool_cls, (Prefork, Solo)):
        raise UsageWrong("Drains run in processes: use --pool prefork (the default) or solo.")
    if worker.pool_start_method != "fork":
        raise UsageWrong("The processes of a worker are forked: leave --pool-start-method at fork.")

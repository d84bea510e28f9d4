"""The producer's Celery tasks: steps of syncs and response exports.

They run in the workers, one at a time in a node. A worker imports this module by its name
(`TASKS_MODULES` of `segrelay.worker.contract.celery`). Losing a message is harmless, since the
sweep starts what is due; so is running two steps at once, since each has a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import structlog
from celery import shared_task

from segrelay.producer.publish import Publisher
from segrelay.producer.response_export import response_export_for
from segrelay.producer.steps import Step
from segrelay.producer.sync.step import FileSources, syncing_for
from segrelay.worker.contract.celery import (
    RESPONSES_TASK,
    SYNC_TASK,
    BackgroundJob,
    ResultLine,
    Turn,
    Turns,
)
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.errors import Bug, SegrelayError
from segrelay.worker.logs import log_bug

LOG: Final = structlog.get_logger()
NO_TURN: Final = "no free slot"


@cache
def client_of(node: Turns) -> Redis:
    """Return this process' connection for background jobs, opened by the first of them.

    A process that is forked later has its own.
    """
    redis = node.settings.redis
    return connect(resolve_url(redis), replicas=redis.replicas)


@cache
def _opened(node: Turns) -> tuple[Redis, Publisher, FileSources]:
    """Return the connection, the publisher and the files of syncs that this process has open."""
    client = client_of(node)
    return client, Publisher(client, node.settings), {}


@shared_task(name=SYNC_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def sync(self: Any, name: str) -> ResultLine:
    """Do one step of a sync, and wake the next."""
    return do_background_job(self.app.segrelay, BackgroundJob(SYNC_TASK, name), _sync_step)


@shared_task(name=RESPONSES_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def responses(self: Any, destination: str) -> ResultLine:
    """Ship some of a destination's responses, and wake the next step."""
    job = BackgroundJob(RESPONSES_TASK, destination)
    return do_background_job(self.app.segrelay, job, _responses_step)


def _responses_step(node: Turns, destination: str, turn: Turn) -> Step:
    client, *_ = _opened(node)
    return response_export_for(client, node.settings, destination).step(is_over=turn.is_over)


def _sync_step(node: Turns, name: str, turn: Turn) -> Step:
    client, publisher, files = _opened(node)
    syncing = syncing_for(client, node.settings, name, publisher, files)
    return syncing.step(is_over=turn.is_over)


def do_background_job(
    node: Turns,
    background_job: BackgroundJob,
    do_step: Callable[[Turns, str, Turn], Step],
) -> ResultLine:
    """Do one step of a background job in the node's turn; return the result line."""
    try:
        with node.turn(background_job) as turn:
            if turn is None:
                return ResultLine(NO_TURN)
            step = do_step(node, background_job.name, turn)
    except SegrelayError as error:
        LOG.warning("background_job.failed", **background_job._asdict(), message=error.message)
        raise
    except Exception as error:  # noqa: BLE001 - this is the edge
        # Its message may hold a profile's fields, and Flower would show it.
        raise Bug(log_bug(error, "background_job.failed", **background_job._asdict())) from None
    if step.more:
        node.wake([background_job])
    return ResultLine(step.line)

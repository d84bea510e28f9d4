"""The Celery task that renames people whose stable id came with another identity.

A worker imports this module by its name (`TASKS_MODULES` of `worker.contract.celery.messages`).
What it needs is loaded at the first task: most workers never do it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from celery import shared_task
from redis import Redis

from producer.tasks import do_errand
from worker.contract.celery.messages import Errand, Turn, Turns
from worker.contract.celery.options import ResultLine
from worker.contract.celery.wire import RENAMES_TASK
from worker.contract.redis.connection import connect, resolve_url
from worker.errors import SegrelayError


@shared_task(name=RENAMES_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def renames(self: Any, destination: str) -> ResultLine:
    """Rename some people of a destination, and ring for the next step."""
    return do_errand(self.app.segrelay, Errand(RENAMES_TASK, destination), _step)


@cache
def _client(node: Turns) -> Redis:
    """Connect at the first task: a process that was forked later has its own."""
    redis = node.settings.redis
    return connect(resolve_url(redis), replicas=redis.replicas)


def _step(node: Turns, destination: str, turn: Turn) -> tuple[str, bool]:
    from ops.person.following import following_for  # noqa: PLC0415 - see above

    step = following_for(_client(node), node.settings, destination).step(is_over=turn.is_over)
    return step.line, step.more

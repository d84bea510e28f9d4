"""The form of Celery's messages: their queues and tasks, and what of a received one is obeyed.

Whoever can write to the broker can leave anything there, and Celery ends at some of it, in every
worker that reads it, again after each restart. So a message is made anew from the few values that
count, before Celery sees it: it can't set a time limit, a time, a callback or a result's receiver.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Final
from uuid import uuid4

import orjson

from worker.contract.words import BACKFILL, LIVE

DRAIN_TASK: Final = "segrelay.drain"
FORMER_DRAIN_TASK: Final = "worker.node.task.drain"
"""The name of the task `drain` in version 0.1, whose messages may still wait."""
SYNC_TASK: Final = "segrelay.sync"
RESPONSES_TASK: Final = "segrelay.responses"
RENAMES_TASK: Final = "segrelay.renames"
EXCHANGE: Final = "segrelay"
_PREFIX: Final = "segrelay."
_DRAIN_TYPES: Final = (str, int)
_ERRAND_TYPES: Final = (str,)
_ARGUMENTS: Final = {
    DRAIN_TASK: _DRAIN_TYPES,
    FORMER_DRAIN_TASK: _DRAIN_TYPES,
    SYNC_TASK: _ERRAND_TYPES,
    RESPONSES_TASK: _ERRAND_TYPES,
    RENAMES_TASK: _ERRAND_TYPES,
}
"""The types of the arguments of each task."""
_MAX_BYTES: Final = 10_000
"""The longest body that is read: ours have some hundred bytes."""
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_NO_CALLBACKS: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def queue_name(kind: str) -> str:
    """Return the name of the Celery queue of a kind of lane, `live` or `backfill`."""
    return _PREFIX + kind


QUEUES: Final = (queue_name(LIVE), queue_name(BACKFILL))
"""The names of the queues, the one that is read first in front."""


def shown_arguments(task: str, args: tuple[str | int, ...], queue: str) -> str:
    """Return the arguments of a message as Flower shows them."""
    if _ARGUMENTS[task] is _ERRAND_TYPES:
        return str(args[0])
    return f"{args[0]}, partition {args[1]}, {queue.removeprefix(_PREFIX)}"


def rebuild_message(received: Any, queue: str) -> dict[str, Any]:
    """Return a message from a queue of ours as a producer of ours would have written it.

    Args:
        received: The value that was parsed from the broker's JSON.
        queue: The name of the queue that it was in.

    Raises:
        ValueError: It is no message of ours; the text says why, and holds nothing of it.
    """
    match received:
        case {
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "body": str(body),
            "headers": {"task": str(task), "id": str(identity)},
            "properties": {"body_encoding": "base64"},
        }:
            pass
        case _:
            raise ValueError("it has not the form of a Celery message in JSON")
    if task not in _ARGUMENTS:
        raise ValueError("there is no such task")
    if not _ID.fullmatch(identity):
        raise ValueError("its id is not one")
    return _message(task, _arguments(task, body), identity, queue)


def _arguments(task: str, body: str) -> tuple[str | int, ...]:
    if len(body) > _MAX_BYTES:
        raise ValueError("its body is too long")
    try:
        parsed = orjson.loads(base64.b64decode(body, validate=True))
    except ValueError:
        raise ValueError("its body is not JSON in base64") from None
    match parsed:
        case [[*args], {}, {}] if tuple(map(type, args)) == _ARGUMENTS[task]:
            return tuple(args)
        case _:
            raise ValueError("its body does not hold the task's arguments")


def _message(task: str, args: tuple[str | int, ...], identity: str, queue: str) -> dict[str, Any]:
    body = json.dumps([args, {}, _NO_CALLBACKS]).encode()
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": task,
            "id": identity,
            "root_id": identity,
            "argsrepr": shown_arguments(task, args, queue),
            "kwargsrepr": "",
            "ignore_result": True,
        },
        "properties": {
            "body_encoding": "base64",
            "correlation_id": identity,
            # A new one: that of another message would be acknowledged together with this one.
            "delivery_tag": str(uuid4()),
            "delivery_info": {"exchange": EXCHANGE, "routing_key": queue},
        },
    }

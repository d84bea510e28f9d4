"""The producer's Celery tasks: steps of syncs and response exports.

They run in the workers, one at a time in a node. A worker imports this module by its name
(`TASKS_MODULES` of `segrelay.worker.contract.celery`). Losing a message is harmless, since the
sweep starts what is due; so is running two steps at once, since each has a lock.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

import orjson
import structlog
from celery import shared_task

from segrelay.producer.lytics import LyticsApi
from segrelay.producer.publish import Publisher
from segrelay.producer.steps import STEP_SECONDS, Step, StepState, StepStore, wait_seconds
from segrelay.producer.sync.step import FileSources, syncing_for
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import (
    RESPONSES_TASK,
    SYNC_TASK,
    BackgroundJob,
    ResultLine,
    Turn,
    Turns,
)
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.protection import PROTECTION, RESPONSES
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import (
    Bug,
    ConfigurationInvalid,
    LyticsRefused,
    LyticsUnavailable,
    SegrelayError,
)
from segrelay.worker.logs import log_bug

LOG: Final = structlog.get_logger()
BODY_RECORDS: Final = 500
"""The number of records in a body: at 16 KB each at most, below the 10 MB that Lytics takes."""
_REQUEST_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 60.0


@dataclass(slots=True)
class ExportState(StepState):
    """The state of the export of a destination's responses.

    Args:
        failures: The number of steps in a row that came to nothing.
    """

    failures: int = 0


def export_responses(
    client: Redis,
    settings: Settings,
    destination: str,
    is_over: Callable[[], bool] = lambda: False,
) -> Step:
    """Send outcomes of triggers with a `response_stream` to Lytics' collect API, for one step.

    Drains leave them in a capped stream of their partition. They go to Lytics in batches, at least
    once, and are taken away when Lytics has them; what it does not take now stays for a later step.

    Raises:
        RedisUnavailable: Some that were sent may be sent again.
    """
    ends_at = time.monotonic() + STEP_SECONDS
    shown = f"the responses of '{destination}'"
    store = StepStore(client, keys.responses(destination), shown, ExportState)

    def work(state: ExportState, _: int) -> Step:
        sent, more, wait, problem = 0, False, 0.0, ""
        try:
            with _api(settings) as api:
                for count in _send_all(client, api, destination, settings.redis.partitions):
                    sent += count
                    store.save(state)
                    more = time.monotonic() > ends_at or is_over()
                    if more:
                        break
            state.failures = 0
        except (LyticsUnavailable, LyticsRefused, ConfigurationInvalid) as error:
            state.failures, problem = state.failures + 1, f"; {error.message}"
            may_pass = isinstance(error, LyticsUnavailable)
            wait = wait_seconds(state.failures) if may_pass else _REFUSED_SECONDS
            LOG.warning("responses.wait", failures=state.failures, reason=error.message)
        next_ms = store.now_ms() + round(1000 * wait) if wait else 0
        store.save(state, next_ms=next_ms, ends=True)
        told = f"{plural(sent, 'response')} sent{problem}"
        return Step(told, more=more, wait_seconds=wait)

    return store.step(work)


def _api(settings: Settings) -> LyticsApi:
    if settings.lytics is None:
        raise ConfigurationInvalid("A trigger's response_stream needs the table [lytics].")
    # The step itself is tried again; within it nothing is waited for.
    return LyticsApi(settings.lytics, timeout_seconds=_REQUEST_SECONDS, tries=1)


def _send_all(client: Redis, api: LyticsApi, destination: str, partitions: int) -> Iterator[int]:
    """Send the records of a destination, the oldest of each partition first; yield their counts."""
    for number in range(partitions):
        key = PartitionKeys(destination, number).responses
        while found := cast("list[Any]", client.xrange(key, count=BODY_RECORDS)):
            by_stream: defaultdict[str, dict[bytes, Any]] = defaultdict(dict)
            for entry_id, fields in found:
                stream, record = orjson.loads(PROTECTION.unseal(fields[b"r"], RESPONSES))
                by_stream[stream][entry_id] = record
            for stream, records in by_stream.items():
                api.collect(stream, list(records.values()))
                client.xdel(key, *records)
                yield len(records)


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
    return export_responses(client_of(node), node.settings, destination, turn.is_over)


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

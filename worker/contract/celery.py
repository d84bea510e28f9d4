"""Celery's messages, options and transports, the same for workers, wake-ups and Flower.

Celery carries no events here. Its messages ask a worker for a drain or for a background job, and a
lost message costs nothing, since the sweep finds what was not woken.

A Redis at `maxmemory` refuses whatever may grow. Celery's messages are how waiting events get
worked off, and that is what makes room: so the transports let a full Redis take them.

Whoever can write to the broker can leave anything there, and some of it crashes Celery, in every
worker that reads it, again after each restart. So a message is made anew from the few values that
count, before Celery sees it: it can't set a time limit, a time, a callback or a result's receiver.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from queue import Empty
from typing import Any, Final, NamedTuple, Protocol

import orjson
import structlog
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel, SentinelChannel, SentinelTransport, Transport

from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.own_processes import random_bits
from segrelay.worker.contract.redis.client import Redis, RedisError
from segrelay.worker.contract.redis.connection import BrokerClient, resolve_broker_url
from segrelay.worker.contract.redis.scripts import IN_ANY_CASE, ScriptCall, run_each
from segrelay.worker.contract.redis.url import RedisAddress, broker_url_of, parse_redis_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import BACKFILL, LIVE

DRAIN_TASK: Final = "segrelay.drain"
SYNC_TASK: Final = "segrelay.sync"
WATCH_TASK: Final = "segrelay.watch"
RESPONSES_TASK: Final = "segrelay.responses"
VERIFY_TASK: Final = "segrelay.verify"
RETENTION_TASK: Final = "segrelay.retention"
EXCHANGE: Final = "segrelay"
_PREFIX: Final = "segrelay."
_BACKGROUND_TASKS: Final = (SYNC_TASK, WATCH_TASK, RESPONSES_TASK, VERIFY_TASK, RETENTION_TASK)
_ARGUMENTS: Final[dict[str, tuple[type, ...]]] = {
    DRAIN_TASK: (str, int),
    **dict.fromkeys(_BACKGROUND_TASKS, (str,)),
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
    if task in _BACKGROUND_TASKS:
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
    # A new tag: that of another message would be acknowledged together with this one.
    return _rebuilt(task, _arguments(task, body), identity, queue, _new_id())


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


def _rebuilt(
    task: str, args: tuple[str | int, ...], identity: str, queue: str, tag: str
) -> dict[str, Any]:
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
            "delivery_tag": tag,
            "delivery_info": {"exchange": EXCHANGE, "routing_key": queue},
        },
    }


TASKS_MODULES: Final = (
    "segrelay.producer.tasks",
    "segrelay.ops.backfill.watching",
    "segrelay.ops.verify",
    "segrelay.ops.retention",
)
"""The modules with tasks of background jobs, as names: the worker imports none of them."""


class BackgroundJob(NamedTuple):
    """A step of background work: its Celery task, and the name of its subject, such as a sync.

    Attributes:
        name: The name of the sync, watch, destination or other subject, as Flower shows it.
    """

    task: str
    name: str


class Turn(Protocol):
    """The permission to do one background job."""

    def is_over(self) -> bool:
        """Say whether the job should end: the node was told to stop, or live work waits."""


class Turns(Hashable, Protocol):
    """A node, as the background jobs' tasks see it; the Celery app's attribute `segrelay`."""

    settings: Settings

    def turn(self, background_job: BackgroundJob) -> AbstractContextManager[Turn | None]:
        """Return the node's turn for a background job; None if the job has to wait for it."""

    def wake(self, background_jobs: Iterable[BackgroundJob]) -> Any:
        """Send messages for background jobs; for those that get lost the sweep sends others."""


SEND_SECONDS: Final = 1.0
"""The longest wait for a broker, in seconds; then the sweep wakes the partition instead."""


class Message(NamedTuple):
    """The message for one call of a Celery task."""

    task: str
    args: tuple[str | int, ...]
    queue: str


def drain_message(partition: PartitionKeys, kind: str) -> Message:
    """Return the message that asks for a drain, of `live` or `backfill` work."""
    args = (partition.destination, partition.number)
    return Message(DRAIN_TASK, args, queue_name(kind))


def background_job_message(background_job: BackgroundJob) -> Message:
    """Return the message that asks for a background job, behind all live work."""
    return Message(background_job.task, (background_job.name,), queue_name(BACKFILL))


_NO_ID: Final = "00000000-0000-0000-0000-000000000000"
_NO_ID_BYTES: Final = _NO_ID.encode()


def message_text(message: Message) -> bytes:
    """Return a new message as it stands in its queue."""
    return _unnamed_text(message).replace(_NO_ID_BYTES, _new_id().encode())


def _new_id() -> str:
    """Return an id in the form in which Celery has them."""
    digits = f"{random_bits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@lru_cache(maxsize=4_096)
def _unnamed_text(message: Message) -> bytes:
    return orjson.dumps(_rebuilt(message.task, message.args, _NO_ID, message.queue, _NO_ID))


_AT_ONCE: Final = 500
"""The most messages that one call of a script writes: it has them on Lua's stack."""


def send_messages(client: Redis, messages: Iterable[Message]) -> None:
    """Put messages into their queues, in one round trip; a full Redis takes them.

    Those of a queue are read in this order. Celery's own producer would wait for Redis' disk once
    for each message. It also writes headers that no worker of ours reads: those are left out.

    Args:
        client: The broker's client, with a short timeout.
        messages: The messages, for any queues.

    Raises:
        RedisUnavailable: Some of them may have been sent.
    """
    texts: dict[str, list[bytes]] = {}
    for message in messages:
        texts.setdefault(message.queue, []).append(message_text(message))
    calls = [
        ScriptCall([queue], ["LPUSH", *every[first : first + _AT_ONCE]])
        for queue, every in texts.items()
        for first in range(0, len(every), _AT_ONCE)
    ]
    run_each(client, IN_ANY_CASE, calls)


LOG: Final = structlog.get_logger()


_refused: Final = Counter[str]()
"""The messages that this process has refused, by the reason."""


def count_refused() -> int:
    """Return how many messages this process has refused since it began."""
    return _refused.total()


def _refuse(queue: str, reason: str) -> None:
    """Log and count a message that was taken from the broker and is thrown away.

    Nothing of it is logged: anybody may have written it.
    """
    _refused[reason] += 1
    LOG.warning("message.refused", queue=queue, reason=reason, refused=_refused.total())


class _RefusingChannel(Channel):
    """A channel that refuses what is no message, where the library would raise an error.

    A message that was taken is gone: nobody writes down that it is under way, which would cost two
    waits for Redis' disk. If its worker is killed before it begins, the sweep finds the work.
    """

    do_restore = False

    def _get_client(self) -> type[BrokerClient]:
        return BrokerClient

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's
        """Do nothing, as the message is gone."""

    def basic_consume(self, queue: str, *arguments: Any, **options: Any) -> Any:
        """Consume from a queue; of those that hold tasks, messages are made anew."""
        tag = super().basic_consume(queue, *arguments, **options)  # type: ignore[no-untyped-call]
        if queue in QUEUES:
            deliver = self.connection._callbacks[queue]  # noqa: SLF001 - there is no other way in

            def deliver_rebuilt(received: Any) -> Any:
                try:
                    message = rebuild_message(received, queue)
                except ValueError as error:
                    return _refuse(queue, str(error))
                return deliver(message)

            self.connection._callbacks[queue] = deliver_rebuilt  # noqa: SLF001
        return tag

    def _brpop_read(self, **options: Any) -> bool:
        with self._refusing("tasks"):
            super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        return True

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        with self._refusing(exchange):
            super()._deliver_fanout_message(message, exchange)  # type: ignore[no-untyped-call]
        return True

    @contextmanager
    def _refusing(self, queue: str) -> Iterator[None]:
        """Refuse the message at hand at any error but those of the connection.

        Redis has given it away already, so it is gone.
        """
        try:
            yield
        except (Empty, OperationalError, RedisError, *self.connection_errors):
            raise
        except Exception as error:  # noqa: BLE001 - the library raises what Python happens to
            _refuse(queue, f"it can't be read ({type(error).__name__})")


class _RefusingSentinelChannel(_RefusingChannel, SentinelChannel):
    """A channel behind Sentinels that keeps the library's own connections.

    `sentinels.SentinelConnection` would make a lost connection of a refused write, and with that a
    lost watch: the library would repeat the giving back of messages for ever.
    """


class AllowOomTransport(Transport):
    """kombu's transport for `redis://` and `rediss://`; a full Redis takes its writes."""

    Channel = _RefusingChannel


class AllowOomSentinelTransport(SentinelTransport):
    """kombu's transport for `sentinel://`; a full Redis takes its writes."""

    Channel = _RefusingSentinelChannel


_SOCKET_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 1.0


class ResultLine:
    """A result that Flower shows as it is, without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def broker_options(settings: Settings) -> dict[str, Any]:
    """Return Celery's options, as `Celery.conf.update` takes them."""
    for scheme, transport in (
        ("redis", AllowOomTransport),
        ("rediss", AllowOomTransport),
        ("sentinel", AllowOomSentinelTransport),
    ):  # before kombu looks one up for the first time
        TRANSPORT_ALIASES[scheme] = f"{transport.__module__}:{transport.__qualname__}"
    exchange = Exchange(EXCHANGE, type="direct")  # type: ignore[no-untyped-call]
    return {
        **_FIXED,
        **connection_options(parse_redis_url(resolve_broker_url(settings.redis))),
        "task_queues": [
            Queue(name, exchange, routing_key=name, no_ack=True)  # type: ignore[no-untyped-call]
            for name in QUEUES
        ],
    }


_TRANSPORT: Final[Mapping[str, Any]] = {
    "queue_order_strategy": "priority",  # kombu's default takes turns: live must be first
    # A neighbour in the same database that uses Celery, too, has its own.
    "unacked_key": "segrelay.unacked",
    "unacked_index_key": "segrelay.unacked_index",
    "unacked_mutex_key": "segrelay.unacked_mutex",
    "socket_timeout": _SOCKET_SECONDS,
    "socket_connect_timeout": _CONNECT_SECONDS,
    "socket_keepalive": True,
}
_FIXED: Final = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "enable_utc": True,
    "broker_connection_timeout": _CONNECT_SECONDS,
    "broker_connection_retry_on_startup": True,
    "task_default_queue": QUEUES[0],
    "task_default_exchange": EXCHANGE,
    "task_default_routing_key": QUEUES[0],
    "task_create_missing_queues": False,
    "task_ignore_result": True,
    "task_acks_late": False,
    "task_send_sent_event": False,
    "task_publish_retry": False,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_send_task_events": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_proc_alive_timeout": 60.0,
    "worker_hijack_root_logger": False,
}


_SENTINEL_SECONDS: Final = 1.0


def connection_options(address: RedisAddress) -> dict[str, Any]:
    """Return Celery's options for the broker at an address; only Sentinels need more than a URL."""
    transport, tls = dict(_TRANSPORT), {}
    if address.service:
        # Without them a dead Sentinel is asked again for seconds, or for ever.
        quick = {
            "socket_timeout": _SENTINEL_SECONDS,
            "socket_connect_timeout": _SENTINEL_SECONDS,
            "retry": None,
        }
        transport["master_name"] = address.service
        transport["sentinel_kwargs"] = quick | address.sentinel_options
        tls = {"ssl_cert_reqs": "required", **address.tls_options} if address.tls else {}
    return {
        "broker_url": broker_url_of(address),
        "broker_use_ssl": tls or False,
        "broker_transport_options": transport,
    }

"""Celery's options and the broker's address, the same for worker, doorbell and Flower.

Celery carries no events here. It says who works on which partition; a lost message costs nothing.
"""

from __future__ import annotations

from typing import Any, Final

from kombu.entity import Exchange, Queue

from worker.contract.celery import transport as broker_transport
from worker.contract.celery.wire import EXCHANGE, QUEUES
from worker.contract.redis.connection import resolve_broker_url
from worker.contract.redis.url import RedisAddress, broker_url_of, parse_redis_url
from worker.contract.settings import Settings
from worker.contract.settings.sections import RedisSettings
from worker.contract.settings.values.fields import EMBEDDED

VERSION_KEY: Final = "segrelay_version"
"""The key of a worker's Celery configuration under which Flower finds segrelay's version."""

_VISIBILITY_SECONDS: Final = 60
"""The seconds after which a message comes back that a killed worker had fetched but not begun."""
_SOCKET_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 1.0


class ResultLine:
    """A result that Flower shows as it is, without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        """Return the text."""
        return self._text


def broker_options(settings: Settings) -> dict[str, Any]:
    """Return Celery's options, as `Celery.conf.update` takes them."""
    broker_transport.register()
    exchange = Exchange(EXCHANGE, type="direct")  # type: ignore[no-untyped-call]
    return {
        **_FIXED,
        "broker_url": celery_broker_url(settings.redis),
        "broker_use_ssl": celery_ssl(settings.redis) or False,
        "broker_transport_options": _TRANSPORT | broker_transport_options(settings.redis),
        "task_queues": [_queue(name, exchange) for name in QUEUES],
    }


def _queue(name: str, exchange: Exchange) -> Queue:
    return Queue(name, exchange, routing_key=name)  # type: ignore[no-untyped-call]


_TRANSPORT: Final = {
    "queue_order_strategy": "priority",  # kombu's default takes turns: live must be first
    # A neighbour in the same database that uses Celery, too, has its own.
    "unacked_key": "segrelay.unacked",
    "unacked_index_key": "segrelay.unacked_index",
    "unacked_mutex_key": "segrelay.unacked_mutex",
    "visibility_timeout": _VISIBILITY_SECONDS,
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


def celery_broker_url(settings: RedisSettings) -> str:
    """Return the URL of Celery's broker, as Celery reads it; see `broker_transport_options`."""
    return broker_url_of(parse_redis_url(resolve_broker_url(settings)))


def celery_ssl(settings: RedisSettings) -> dict[str, str | bool]:
    """Return Celery's option `broker_use_ssl`, which is needed for TLS behind Sentinels only."""
    address = _broker_address(settings)
    if not address or not address.service or not address.tls:
        return {}
    return {"ssl_cert_reqs": "required"} | address.tls_options


def broker_transport_options(settings: RedisSettings) -> dict[str, Any]:
    """Return the options of Celery's transport that the URL can't hold; only Sentinels need any."""
    address = _broker_address(settings)
    if not address or not address.service:
        return {}
    # Without them a dead Sentinel is asked again for seconds, or for ever.
    quick = {
        "socket_timeout": _SENTINEL_SECONDS,
        "socket_connect_timeout": _SENTINEL_SECONDS,
        "retry": None,
    }
    return {"master_name": address.service, "sentinel_kwargs": quick | address.sentinel_options}


def _broker_address(settings: RedisSettings) -> RedisAddress | None:
    url = settings.broker_url or settings.url
    return None if url == EMBEDDED else parse_redis_url(url)

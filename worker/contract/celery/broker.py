"""The address of Celery's broker, in the words of Celery and its transports."""

from __future__ import annotations

from typing import Any, Final

from worker.contract.redis.connection import resolve_broker_url
from worker.contract.redis.url import RedisAddress, broker_url_of, parse_redis_url
from worker.contract.settings.sections import RedisSettings
from worker.contract.settings.values.fields import EMBEDDED

_SENTINEL_SECONDS: Final = 1.0


def celery_broker_url(settings: RedisSettings) -> str:
    """Return the URL of Celery's broker, as Celery reads it; see `broker_transport_options`."""
    return broker_url_of(parse_redis_url(resolve_broker_url(settings)))


def celery_ssl(settings: RedisSettings) -> dict[str, str | bool]:
    """Return Celery's option `broker_use_ssl`: only behind Sentinels the URL can't say it."""
    address = _broker_address(settings)
    if not address or not address.service or not address.tls:
        return {}
    return {"ssl_cert_reqs": "required"} | address.tls_options


def broker_transport_options(settings: RedisSettings) -> dict[str, Any]:
    """Return what Celery's transport has to be told beside the URL; only Sentinels need any."""
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

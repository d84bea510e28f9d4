"""The addresses of destinations, by which a renamed destination is recognised."""

from __future__ import annotations

from typing import Any

from redis import Redis

from worker.adapters.redis import scripts
from worker.adapters.redis.gate import fingerprint_of
from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Destination, Settings
from worker.core.gate import gate_id
from worker.errors import WeMustAct


def note_addresses(client: Redis, settings: Settings) -> None:
    """Write down the address of each destination whose secrets are set."""
    known = {one.name: _address(settings, one) for one in settings.destinations.values()}
    with redis_errors():
        stored: Any = client.hgetall(keys.ADDRESSES)
        for name, address in known.items():
            if address and stored.get(name.encode()) != address.encode():
                scripts.call_sync(client, "address", [keys.ADDRESSES], [name, address])


def former_names(client: Redis, settings: Settings) -> dict[str, str]:
    """Return the former names of renamed destinations whose data was not carried over.

    A destination is known again by its host and its credentials.
    """
    with redis_errors():
        stored: Any = client.hgetall(keys.ADDRESSES)
    renamed = read_renamed(client)
    gone = {
        address.decode(): name.decode()
        for name, address in stored.items()
        if name.decode() not in settings.destinations and name.decode() not in renamed
    }
    addresses = {one.name: _address(settings, one) for one in settings.destinations.values()}
    return {name: gone[address] for name, address in addresses.items() if address in gone}


def read_renamed(client: Redis) -> dict[str, str]:
    """Return the new names of destinations that were renamed, by the former names."""
    with redis_errors():
        stored: Any = client.hgetall(keys.MOVED)
    return {old.decode(): new.decode() for old, new in stored.items()}


def rename_hint(old: str, new: str) -> str:
    """Return the advice for a destination that was recognised under another name."""
    return (
        f"destination {new} has the host and the credentials of {old}, which the configuration does"
        f" not name any more: if it is the same, `segrelay destination rename {old} {new}` carries"
        " over what is known of it; until then its ledger does not protect what is delivered"
    )


def _address(settings: Settings, destination: Destination) -> str:
    """Return a destination's host and its credentials' fingerprint; "" = a secret is not set."""
    try:
        authorization = settings.authorization_of(destination)
        fingerprint = fingerprint_of(authorization)
    except WeMustAct:
        return ""
    host = gate_id(destination.base_url, "").removesuffix("|")
    return f"{host}|{fingerprint}"

"""The addresses of destinations, by which a renamed destination is recognised."""

from __future__ import annotations

from typing import Any, Final

from redis import Redis

from worker.adapters.redis import scripts
from worker.adapters.redis.gate import fingerprint_of
from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import ScriptCall, run_each
from worker.contract.settings import Destination, Settings
from worker.core.gate import gate_id
from worker.errors import WeMustAct

RENAMED_FROM: Final = "renamed-from:"
"""The beginning of the token of a lease that nobody gets before a destination was renamed."""
_OWNER: Final = "segrelay-destination-rename"
_FOR_EVER_MS: Final = 10 * 365 * 24 * 3_600_000


def shut_renamed(client: Redis, settings: Settings) -> dict[str, str]:
    """Refuse drains under the new name of a known destination until that was carried over.

    Without its ledger, older events would pass newer ones, and both names would be delivered side
    by side. The leases of its partitions are taken; `segrelay destination rename` gives them back.

    Returns:
        The former names of those destinations.
    """
    former = former_names(client, settings)
    calls = [
        ScriptCall((PartitionKeys(name, number).lease,), (token, _FOR_EVER_MS, _OWNER))
        for name in settings.destinations
        for token in (f"{RENAMED_FROM}{former[name]}" if name in former else "",)
        for number in settings.redis.numbering.numbers
    ]
    run_each(client, scripts.source("shut"), calls)
    return former


def note_addresses(client: Redis, settings: Settings) -> None:
    """Write down the address of each destination whose secrets are set, but for renamed ones."""
    former = former_names(client, settings)
    known = {
        one.name: _address(settings, one)
        for one in settings.destinations.values()
        if one.name not in former
    }
    with redis_errors():
        stored: Any = client.hgetall(keys.ADDRESSES)
        for name, address in known.items():
            if address and stored.get(name.encode()) != address.encode():
                scripts.call_sync(client, "address", [keys.ADDRESSES], [name, address])


def former_names(client: Redis, settings: Settings) -> dict[str, str]:
    """Return the former names of renamed destinations whose data was not carried over.

    A new name is one without an address in Redis; the destination is known again by its host and
    its credentials. Two that are both configured may share them.
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
    return {
        name: gone[address]
        for name, address in addresses.items()
        if address in gone and name.encode() not in stored
    }


def read_renamed(client: Redis) -> dict[str, str]:
    """Return the new names of destinations that were renamed, by the former names."""
    with redis_errors():
        stored: Any = client.hgetall(keys.MOVED)
    return {old.decode(): new.decode() for old, new in stored.items()}


def rename_hint(old: str, new: str) -> str:
    """Return the advice for a destination that was recognised under another name."""
    return (
        f"destination {new} has the host and the credentials of {old}, which the configuration does"
        f" not name any more: nothing is delivered under the new name until `segrelay destination"
        f" rename {old} {new}` has carried over what is known of it"
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

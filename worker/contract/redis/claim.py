"""Claiming a Redis at first use: format, partitions, identity, protection stay what they were then.

The destinations of the configuration are registered with it, and a name means the same destination
from then on: another one with that name, or that one with another name, is refused.

Another partition count would put one profile into two partitions, another identity would make two
keys of one person: both break the truth of what is delivered, so both are refused.

A process that protects people's data and one that does not must not write beside each other: the
script that claims a Redis decides, and each process opens its secret then, or is refused.

A Redis also gets a random name at first use, its instance id. Each process that runs for long
remembers it and compares; where it has changed, all that the Redis held before is gone, and that is
kept until somebody has seen it. In a Cluster, every master has an instance id in one of its slots,
which moves along with the slot.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

import structlog

from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.protection import PROTECTION, SECRET_BYTES, SealedSecret
from segrelay.worker.contract.redis.acts import Act, carry_out
from segrelay.worker.contract.redis.client import Redis, run_through
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.scripts import (
    IN_ANY_CASE,
    ScriptCall,
    load_script,
    run_each,
    run_script,
    run_together,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.http import fingerprint_of
from segrelay.worker.contract.settings.sections import Destination
from segrelay.worker.errors import ConfigurationInvalid, RedisMismatch, RedisUnavailable

FORMAT_NUMBER: Final = 1
_CLAIM: Final = load_script("redis_claim")
_REGISTER: Final = load_script("destinations_register")
_ADDRESS_DIGITS: Final = 16
_MARK: Final = "sealed"
"""The field with the id of the secret: of a partition's lease, and of the quarantine's totals."""
_LOOK: Final = _REGISTER.replace("flags=allow-oom", "flags=no-writes", 1)
"""`_REGISTER` for commands that only look: it also runs in a Redis that can't write to its disk."""


def claim(client: Redis, settings: Settings) -> None:
    """Write format, partitions and identity to a new Redis, or compare them in one in use.

    The destinations of the configuration are registered.

    Raises:
        ConfigurationInvalid: A key of `[protection]` is not set.
        RedisMismatch: Redis holds another format, partition count, identity or protection, or knows
            one of the destinations under another name, or with another address.
        RedisUnavailable: Redis can't be asked.
    """
    wanted = _wanted(settings)
    # Read first: a full Redis refuses every write, and then a worker is needed most.
    if _is_new(client, settings, wanted):
        # A Redis that came back empty gets the secret that its processes have.
        values: list[str | bytes] = [_sealed_secret(settings), *wanted.values()]
        run_script(client, _CLAIM, (keys.PROTECTION, *wanted), values)
        _is_new(client, settings, wanted)
    refused = _register(client, settings, settings.destinations, "register")
    _mark_partitions(client, settings)
    for name, known_as in refused.items():
        raise RedisMismatch(f"{refusal(name, known_as)}.")


def compare(client: Redis, settings: Settings) -> None:
    """Compare the configuration with the values that Redis was claimed with; write nothing.

    Only a Redis that is new and is to be protected gets its secret: else whoever only looks, for as
    long as a console does, would never learn the one that somebody gives it a moment later.

    Raises:
        ConfigurationInvalid: A key of `[protection]` is not set.
        RedisMismatch: Redis holds another format, partition count, identity or protection.
        RedisUnavailable: Redis can't be asked.
    """
    wanted = _wanted(settings)
    if _is_new(client, settings, wanted) and settings.protection and not PROTECTION:
        written = (keys.PROTECTION, keys.IDENTITY)
        run_script(client, _CLAIM, written, (_sealed_secret(settings),))
        _is_new(client, settings, wanted)


def learn_protection(settings: Settings, record: bytes) -> None:
    """Seal and unseal with the secret that a Redis in use has; b"" = it is not protected.

    Raises:
        ConfigurationInvalid: A key of `[protection]` is not set.
        RedisMismatch: The configuration has no key for it, or one that it does not need.
    """
    _protect(settings, {keys.PROTECTION: record.decode() or None, keys.IDENTITY: ""})


def read_names(client: Redis) -> list[str]:
    """Read the names of the destinations that Redis knows.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    return sorted(name.decode() for name in cast("list[bytes]", client.hkeys(keys.DESTINATIONS)))


def confirm_destination(client: Redis, settings: Settings, name: str) -> None:
    """Register a destination as it is configured, because a person says so.

    Processes with its former address or authorization are kept from its partitions first, so that
    they send nothing that comes from now on: their drains lose the leases.

    Raises:
        RedisUnavailable: Redis can't be asked; doing it again is safe.
    """
    place = place_of(settings.destinations[name])
    leases = [PartitionKeys(name, number).lease for number in range(settings.redis.partitions)]
    # In this order: from the first on, none of them takes the lease, which the second takes away.
    for words in (("HSET", "address", place), ("HDEL", "token", "until", "length", "owner")):
        run_each(client, IN_ANY_CASE, [ScriptCall((lease,), words) for lease in leases])
    _register(client, settings, [name], "confirm")


def read_refused(client: Redis, settings: Settings) -> dict[str, str]:
    """Return the destinations that can't be registered, each with the name that it would take over.

    That is its own name, if Redis knows it with another address or authorization.
    """
    return _register(client, settings, settings.destinations, "look")


def refusal(name: str, known_as: str) -> str:
    """Return why a destination is refused, and what to do."""
    if name == known_as:
        return (
            f"Redis knows the destination {name} with another address or authorization: two"
            f" destinations would share a ledger. Put them back, or if it has moved,"
            f" `segrelay redis confirm-destination {name}` says so; what waits goes to the new"
            " address"
        )
    return (
        f"destination {name} has the address and the authorization of {known_as}, which the"
        f" configuration no longer says of it: one destination would have two ledgers. Call it"
        f" {known_as}, or if it is another one, `segrelay redis"
        f" confirm-destination {name}` says so"
    )


def place_of(destination: Destination) -> str:
    """Return the address of a destination, as a digest, and the name of its authorization."""
    url = hashlib.sha256(destination.base_url.encode()).hexdigest()[:_ADDRESS_DIGITS]
    return f"{url} {destination.authorization}"


def mismatches(client: Redis, settings: Settings) -> list[str]:
    """Return why a Redis can't be used with this configuration; nothing is written.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    wanted = _wanted(settings)
    refused = (refusal(*names) for names in read_refused(client, settings).items())
    found = _read(client, wanted)
    try:
        _protect(settings, found)
        protection = []
    except (ConfigurationInvalid, RedisMismatch) as error:
        protection = [error.message]
    return [*_complaints(found, wanted), *protection, *refused]


def _is_new(client: Redis, settings: Settings, wanted: Mapping[str, str]) -> bool:
    """Say whether Redis lacks any of the wanted values, and refuse values that do not fit.

    Raises:
        ConfigurationInvalid: A key of `[protection]` is not set.
        RedisMismatch: A value in Redis does not fit.
    """
    found = _read(client, wanted)
    for complaint in _complaints(found, wanted):
        raise RedisMismatch(complaint)
    _protect(settings, found)
    is_protected = found[keys.PROTECTION] is not None or not settings.protection
    return not is_protected or any(found[key] is None for key in wanted)


def _protect(settings: Settings, found: Mapping[str, str | None]) -> None:
    """Switch the protection of people's data on or off, as Redis and the configuration say.

    A Redis that came back empty gets the same secret again, so it stays on.
    """
    record, section = found[keys.PROTECTION], settings.protection
    if record and not section:
        raise RedisMismatch(
            "Redis is protected: what it holds about people is sealed. Set [protection] key to its"
            " key; to do without, let the deliveries drain, and begin with an empty Redis."
        )
    if section and not record and found[keys.IDENTITY] is not None:
        raise RedisMismatch(
            "[protection] key is set, and Redis is in use without protection: what it holds about"
            " people stands open. Let the deliveries drain without the key, and begin with an empty"
            " Redis: another database or, if it is embedded, another redis.data_dir."
        )
    if record and section:
        sealed = SealedSecret.loads(record.encode())
        PROTECTION.use(sealed.opened(section.revealed()), record.encode())
    elif not section:
        PROTECTION.off()


def _mark_partitions(client: Redis, settings: Settings) -> None:
    """Write into each partition, and the quarantine, with which secret they are sealed, if so.

    The scripts that add something and that take a lease compare it: a process that stood still
    while Redis came back empty has another secret than whoever has claimed it since.
    """
    if not PROTECTION:
        return
    numbers = range(settings.redis.partitions)
    marked = [PartitionKeys(name, n).lease for name in read_names(client) for n in numbers]
    marked.append(keys.quarantine("totals"))
    told = "HSETNX", _MARK, PROTECTION.secret_id.hex()
    run_each(client, IN_ANY_CASE, [ScriptCall((key,), told) for key in marked])


def _sealed_secret(settings: Settings) -> bytes:
    """Return the secret for a new Redis, sealed with the key; b"" = it is not protected."""
    if not settings.protection:
        return b""
    own = settings.protection.revealed()
    try:
        secret = SealedSecret.loads(PROTECTION.record).opened(own) if PROTECTION else b""
    except RedisMismatch:
        secret = b""
    return SealedSecret.of(secret or secrets.token_bytes(SECRET_BYTES), own).dumps()


def _wanted(settings: Settings) -> dict[str, str]:
    return {
        keys.FORMAT: str(FORMAT_NUMBER),
        keys.PARTITIONS: str(settings.redis.partitions),
        keys.IDENTITY: settings.delivery.identity,
    }


def _complaints(found: Mapping[str, str | None], wanted: Mapping[str, str]) -> Iterator[str]:
    for key, value in wanted.items():
        if found[key] not in {None, value}:
            yield _COMPLAINTS[key].format(found=found[key], wanted=value)


def _read(client: Redis, names: Iterable[str]) -> dict[str, str | None]:
    names = [*names, keys.PROTECTION]
    values = cast("list[bytes | None]", client.mget(names))
    texts = (None if value is None else value.decode() for value in values)
    return dict(zip(names, texts, strict=True))


def _register(
    client: Redis,
    settings: Settings,
    names: Iterable[str],
    how: Literal["register", "look", "confirm"],
) -> dict[str, str]:
    """Register destinations, and return those that were refused, as `read_refused` does."""
    rows = []
    for name in names:
        destination = settings.destinations[name]
        authorization = settings.authorization_of(destination)
        is_known = not authorization or authorization.is_set
        fingerprint = fingerprint_of(authorization) if is_known else ""
        rows += [name, *place_of(destination).split(" "), fingerprint]
    answer = run_script(
        client, _LOOK if how == "look" else _REGISTER, (keys.DESTINATIONS,), (how, *rows)
    )
    return {name: found.decode() for name, found in zip(rows[::4], answer, strict=True) if found}


_COMPLAINTS: Final[Mapping[str, str]] = {
    keys.FORMAT: "Redis holds format {found}, this segrelay knows {wanted}."
    " Use the version that wrote it, or another Redis database.",
    keys.PARTITIONS: "Redis is in use with {found} partitions, the configuration says {wanted}:"
    " profiles would change their partition. Set redis.partitions = {found}, or use another Redis.",
    keys.IDENTITY: "Redis is in use with the identity `{found}`, the configuration says `{wanted}`:"
    ' one person would have two ledgers. Set delivery.identity = "{found}", or use another Redis.',
}
"""The messages about values that differ, by their keys."""
LOG: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loss:
    """A Redis that came back empty.

    Args:
        last_seen_ms: The time when its content was last seen, by its own clock.
        noticed_ms: The time when it was noticed.
        node: The address of the node, in a Cluster; "" = all of it.
    """

    last_seen_ms: int
    noticed_ms: int
    node: str = ""


KnownInstances = dict[str, tuple[str, int]]
"""The instance ids that a process has seen last, and when (ms), by key."""


@dataclass(slots=True)
class InstanceWatch:
    """Notices when the Redis that a process works with came back empty.

    Args:
        client: The client of the process.
        settings: The settings with which an empty Redis is claimed anew.
        known: The instance ids that the process has seen; they outlive its connections.
    """

    client: Redis
    settings: Settings
    known: KnownInstances = field(default_factory=dict)

    def look(self) -> None:
        """Compare the instance ids in Redis with those that were last seen.

        Raises:
            RedisUnavailable: Redis can't be asked.
            RedisMismatch: It is another one, and in use with another configuration.
        """
        self._look({keys.INSTANCE_ID: ""})
        with suppress(RedisUnavailable):  # a master that is away has lost nothing yet
            if nodes := self.client.keys_of_masters():
                self._look(nodes)

    def _look(self, nodes: Mapping[str, str]) -> None:
        """Read the instance ids of nodes, and write one where there is none."""
        new = [ScriptCall((key,), ("HSETNX", "id", secrets.token_hex(8))) for key in nodes]
        asked = [("HGET", key, "id") for key in nodes]
        at_ms = now_ms(self.client)
        named = [(IN_ANY_CASE, call) for call in new]
        found = run_through(run_together(self.client, named, asked))[len(new) :]
        for (key, node), name in zip(nodes.items(), found, strict=True):
            if name:  # else it was emptied since, which the next look finds
                self._compare(key, node, name.decode(), at_ms)

    def _compare(self, key: str, node: str, name: str, now_ms: int) -> None:
        before, seen_ms = self.known.get(key, (name, now_ms))
        if before != name:
            lost = f"{before}@{node}" if node else before
            args = ("HSETNX", lost, f"{seen_ms}|{now_ms}")
            run_script(self.client, IN_ANY_CASE, (keys.LOST,), args)
            told = f"Redis{node and f' at {node}'} lost all that it held: segrelay status"
            LOG.error("redis.emptied", message=told)
        self.known[key] = (name, now_ms)
        if before != name:
            claim(self.client, self.settings)


def read_losses(client: Redis) -> list[Loss]:
    """Return each time at which this Redis came back empty, the newest last.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    stored: Any = client.hgetall(keys.LOST)
    found = [_loss(*pair) for pair in stored.items()]
    return sorted(found, key=lambda loss: loss.noticed_ms)


def _loss(name: bytes, text: bytes) -> Loss:
    last_seen_ms, noticed_ms = map(int, text.split(b"|"))
    return Loss(last_seen_ms, noticed_ms, name.decode().partition("@")[2])


def forget_losses(client: Redis, act: Act) -> int:
    """Forget the losses of this Redis, since a person has seen them; return how many there were.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    count = int(client.hlen(keys.LOST))
    done = carry_out(client, replace(act, count=count), keys.LOST, "DEL", only_if_changed=True)
    return max(count, int(done))

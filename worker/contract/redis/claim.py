"""Claiming a Redis at first use: format, partitions, identity, protection stay what they were then.

The destinations of the configuration get their ids with it, see `contract.destinations`.

Another partition count would put one profile into two partitions, another identity would make two
keys of one person: both break the truth of what is delivered, so both are refused.

A process that protects people's data and one that does not must not write beside each other: the
script that claims a Redis decides, and each process opens its secret then, or is refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final, Literal, cast

from segrelay.worker.contract import keys
from segrelay.worker.contract.protection import PROTECTION, SECRET_BYTES, SealedSecret
from segrelay.worker.contract.redis.acts import Act, carry_out
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script, run_each, run_script
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.authorizations import fingerprint_of
from segrelay.worker.contract.settings.urls import host_of
from segrelay.worker.errors import ConfigurationInvalid, RedisMismatch

FORMAT_NUMBER: Final = 1
_CLAIM: Final = load_script("redis_claim")
_SEAL: Final = load_script("redis_mark")
_GIVE: Final = load_script("destinations_give")
_MARK: Final = "sealed"
"""The field with the id of the secret: of a partition's lease, and of the quarantine's totals."""
_LOOK: Final = _GIVE.replace("flags=allow-oom", "flags=no-writes", 1)
"""The same for who only looks, as `status` does: a Redis that can't write to its disk takes it."""


def claim(client: Redis, settings: Settings) -> None:
    """Write format, partitions and identity to a new Redis, or compare them in one in use.

    The destinations of the configuration get their ids.

    Raises:
        ConfigurationInvalid: A key of `[protection]` is not set.
        RedisMismatch: Redis holds another format, partition count, identity or protection, or knows
            one of the destinations under a name that the configuration does not have.
        RedisUnavailable: Redis can't be asked.
    """
    wanted = _wanted(settings)
    # Read first: a full Redis refuses every write, and then a worker is needed most.
    if _is_new(client, settings, wanted):
        # A Redis that came back empty gets the secret that its processes have.
        values: list[str | bytes] = [_sealed_secret(settings), *wanted.values()]
        run_script(client, _CLAIM, (keys.PROTECTION, *wanted), values)
        _is_new(client, settings, wanted)
    names = settings.destinations
    given = _give(client, settings, names, "give")
    ids = {name: destination_id for name, (destination_id, _) in given.items() if destination_id}
    settings.redis.learn_ids(client.hgetall(keys.DESTINATIONS), ids)  # type: ignore[arg-type]
    _mark_partitions(client, settings)
    for name, (_, known_as) in given.items():
        if known_as:
            raise RedisMismatch(f"{rename_hint(known_as, name)}.")


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
    learn_destinations(client, settings)


def learn_protection(settings: Settings, record: bytes) -> None:
    """Seal and unseal with the secret that a Redis in use has; b"" = it is open.

    Raises:
        ConfigurationInvalid: A key of `[protection]` is not set.
        RedisMismatch: The configuration has no key for it, or one that it does not need.
    """
    _protect(settings, {keys.PROTECTION: record.decode() or None, keys.IDENTITY: ""})


def learn_destinations(client: Redis, settings: Settings) -> None:
    """Read the destinations that Redis has, and remember them in the settings.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    settings.redis.learn_ids(client.hgetall(keys.DESTINATIONS))  # type: ignore[arg-type]


def add_destinations(client: Redis, settings: Settings, names: Iterable[str]) -> None:
    """Give ids to destinations of which a person says what they are, where they have none.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    _give(client, settings, names, "new")
    learn_destinations(client, settings)


def rename_destination(client: Redis, act: Act, old: str, new: str) -> bool:
    """Give a destination another name, and keep the act; False if the names have changed meanwhile.

    Raises:
        RedisUnavailable: Redis can't be asked; doing it again is safe.
    """
    return bool(
        carry_out(client, act, keys.DESTINATIONS, "HRENAME", old, new, only_if_changed=True)
    )


def former_names(client: Redis, settings: Settings) -> dict[str, str]:
    """Return the configured destinations that Redis seems to know under another name: that name."""
    found = _give(client, settings, settings.destinations, "look")
    return {name: known_as for name, (_, known_as) in found.items() if known_as}


def rename_hint(old: str, new: str) -> str:
    """Return the advice for a destination that was recognised under another name."""
    return (
        f"destination {new} has the host and the credentials of {old}, which the configuration does"
        f" not name: nothing is written or delivered under the new name. If it is the same one,"
        f" `segrelay rename destination {old} {new}` says so; if it is another one, `segrelay"
        f" redis add-destination {new}`"
    )


def _addresses(settings: Settings) -> dict[str, str]:
    """Return each destination's host and fingerprint of its credentials, "" if one is not set."""
    found = {}
    for name, destination in settings.destinations.items():
        authorization = settings.authorization_of(destination)
        is_known = authorization is None or authorization.is_set
        fingerprint = fingerprint_of(authorization) if is_known else ""
        found[name] = f"{host_of(destination.base_url)}|{fingerprint}"
    return found


def mismatches(client: Redis, settings: Settings) -> list[str]:
    """Return why a Redis can't be used with this configuration; nothing is written.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    wanted = _wanted(settings)
    former = (rename_hint(old, new) for new, old in former_names(client, settings).items())
    found = _read(client, wanted)
    try:
        _protect(settings, found)
        protection = []
    except (ConfigurationInvalid, RedisMismatch) as error:
        protection = [error.message]
    return [*_complaints(found, wanted), *protection, *former]


def _is_new(client: Redis, settings: Settings, wanted: Mapping[str, str]) -> bool:
    """Say whether Redis lacks any of the wanted values, and refuse values that do not fit.

    Raises:
        ConfigurationInvalid: A key of `[protection]` is not set.
        RedisMismatch: A value in Redis does not fit.
    """
    found = _read(client, wanted)
    complaints = _complaints(found, wanted)
    if complaints:
        raise RedisMismatch(complaints[0])
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
    ids, numbers = settings.redis.ids, range(settings.redis.partitions)
    marked = [ids.partition(name, n).lease for name in ids.names() for n in numbers]
    marked.append(keys.quarantine("totals"))
    pipe = client.pipeline(transaction=False)
    for key in marked:
        pipe.hget(key, _MARK)
    marks = zip(marked, pipe.execute(), strict=True)
    told = _MARK, PROTECTION.secret_id.hex()
    unmarked = [ScriptCall((key,), told) for key, mark in marks if mark is None]
    if unmarked:
        run_each(client, _SEAL, unmarked)


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


def _complaints(found: Mapping[str, str | None], wanted: Mapping[str, str]) -> list[str]:
    return [
        _complaint(key, found=value, wanted=wanted[key])
        for key, value in found.items()
        if key in wanted and value not in {None, wanted[key]}
    ]


def _read(client: Redis, names: Iterable[str]) -> dict[str, str | None]:
    names = [*names, keys.PROTECTION]
    values = cast("list[bytes | None]", client.mget(names))
    texts = (None if value is None else value.decode() for value in values)
    return dict(zip(names, texts, strict=True))


def _give(
    client: Redis, settings: Settings, names: Iterable[str], how: Literal["give", "look", "new"]
) -> dict[str, tuple[str, str]]:
    """Return the id of each destination, or the name under which it seems to be known."""
    learn_destinations(client, settings)
    addresses, own = _addresses(settings), settings.redis.ids.own
    rows = [(name, addresses.get(name, ""), own.get(name, "")) for name in names]
    call = ScriptCall((keys.DESTINATIONS,), (how, *chain.from_iterable(rows)))
    (answer,) = run_each(client, _LOOK if how == "look" else _GIVE, [call])
    texts = [text.decode() for text in answer]
    return dict(zip(names, zip(texts[::2], texts[1::2], strict=True), strict=True))


def _complaint(key: str, *, found: str, wanted: str) -> str:
    if key == keys.FORMAT:
        return (
            f"Redis holds format {found}, this segrelay knows {wanted}. "
            "Use the version that wrote it, or another Redis database."
        )
    if key == keys.PARTITIONS:
        return (
            f"Redis is in use with {found} partitions, the configuration says {wanted}: profiles "
            f"would change their partition. Set redis.partitions = {found}, or use another Redis."
        )
    return (
        f"Redis is in use with the identity `{found}`, the configuration says `{wanted}`: one "
        f'person would have two ledgers. Set delivery.identity = "{found}", or use another Redis.'
    )

"""Claiming a Redis at first use: format, partition count and identity stay what they were then.

The destinations of the configuration get their ids with it, see `contract.destinations`.

Another partition count would put one profile into two partitions, another identity would make two
keys of one person: both break the truth of what is delivered, so both are refused. Only `segrelay
redis partitions` changes the count; a configuration that names a former one is still right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final, Literal, cast

from segrelay.worker.contract import keys
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.redis.acts import Act, carry_out
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script, run_each
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.authorizations import fingerprint_of
from segrelay.worker.contract.settings.urls import host_of
from segrelay.worker.errors import PartitionsChange, RedisMismatch

FORMAT_NUMBER: Final = 1
_GIVE: Final = load_script("destinations_give")
_LOOK: Final = _GIVE.replace("flags=allow-oom", "flags=no-writes", 1)
"""The same for who only looks, as `status` does: a Redis that can't write to its disk takes it."""


def claim(client: Redis, settings: Settings) -> None:
    """Write format, partitions and identity to a new Redis, or compare them in one in use.

    The destinations of the configuration get their ids.

    Raises:
        RedisMismatch: Redis holds another format, partition count or identity, or knows one of the
            destinations under a name that the configuration does not have.
        PartitionsChange: The number of partitions is being changed.
        RedisUnavailable: Redis can't be asked.
    """
    wanted = _wanted(settings)
    # Read first: a full Redis refuses every write, and then a worker is needed most.
    if _is_new(client, wanted):
        pipe = client.pipeline(transaction=False)
        for key, value in wanted.items():
            # A Redis that came back empty gets the partitions that its processes work with.
            text = settings.redis.numbering.settled.dumps() if key == keys.PARTITIONS else value
            pipe.set(key, text, nx=True)
        pipe.execute()
        _is_new(client, wanted)
    names = settings.destinations
    while (given := _give(client, settings, names, "give")) is None:
        pass  # the number of partitions has changed in between
    ids = {name: destination_id for name, (destination_id, _) in given.items() if destination_id}
    settings.redis.learn_ids(client.hgetall(keys.DESTINATIONS), ids)  # type: ignore[arg-type]
    for name, (_, known_as) in given.items():
        if known_as:
            raise RedisMismatch(f"{rename_hint(known_as, name)}.")


def compare(client: Redis, settings: Settings) -> None:
    """Compare the configuration with the values that Redis was claimed with; write nothing.

    Raises:
        RedisMismatch: Redis holds another format, partition count or identity.
        RedisUnavailable: Redis can't be asked.
    """
    _is_new(client, _wanted(settings))
    learn_numbering(client, settings)


def learn_numbering(client: Redis, settings: Settings) -> Numbering:
    """Read the partitions and destinations that Redis has, and remember them in the settings.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    pipe = client.pipeline(transaction=False)
    pipe.get(keys.PARTITIONS)
    pipe.hgetall(keys.DESTINATIONS)
    stored, destinations = pipe.execute()
    settings.redis.learn(Numbering.loads(stored) if stored else None)
    settings.redis.learn_ids(destinations)
    return settings.redis.numbering


def settled_numbering(client: Redis, settings: Settings) -> Numbering:
    """Read the partitions that Redis has, and refuse while their number is being changed.

    Raises:
        PartitionsChange: Their number is being changed.
        RedisUnavailable: Redis can't be asked.
    """
    numbering = learn_numbering(client, settings)
    if numbering.target:
        raise PartitionsChange
    return numbering


def add_destinations(client: Redis, settings: Settings, names: Iterable[str]) -> None:
    """Give ids to destinations of which a person says what they are, where they have none.

    Raises:
        PartitionsChange: The number of partitions is being changed, or is another one by now.
        RedisUnavailable: Redis can't be asked.
    """
    if _give(client, settings, names, "new") is None:
        raise PartitionsChange
    learn_numbering(client, settings)


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
    found = _give(client, settings, settings.destinations, "look") or {}
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
    return [*_complaints(_read(client, wanted), wanted), *former]


def _is_new(client: Redis, wanted: Mapping[str, str]) -> bool:
    """Say whether Redis lacks any of the wanted values, and refuse values that do not fit.

    Raises:
        RedisMismatch: A value in Redis does not fit.
    """
    found = _read(client, wanted)
    complaints = _complaints(found, wanted)
    if complaints:
        raise RedisMismatch(complaints[0])
    return None in found.values()


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
        if value is not None and not _fits(key, value, wanted[key])
    ]


def _fits(key: str, found: str, wanted: str) -> bool:
    if key == keys.PARTITIONS:
        return int(wanted) in Numbering.loads(found).counts
    return found == wanted


def _read(client: Redis, names: Iterable[str]) -> dict[str, str | None]:
    names = list(names)
    values = cast("list[bytes | None]", client.mget(names))
    texts = (None if value is None else value.decode() for value in values)
    return dict(zip(names, texts, strict=True))


def _give(
    client: Redis, settings: Settings, names: Iterable[str], how: Literal["give", "look", "new"]
) -> dict[str, tuple[str, str]] | None:
    """Return the id of each destination, or the name under which it seems to be known.

    None if the number of partitions has changed in between.
    """
    look = learn_numbering if how == "look" else settled_numbering
    numbering, addresses, own = (
        look(client, settings),
        _addresses(settings),
        settings.redis.ids.own,
    )
    rows = [(name, addresses.get(name, ""), own.get(name, "")) for name in names]
    args = (numbering.dumps(), how, *chain.from_iterable(rows))
    call = ScriptCall((keys.PARTITIONS, keys.DESTINATIONS), args)
    (answer,) = run_each(client, _LOOK if how == "look" else _GIVE, [call])
    if answer is None:
        return None
    texts = [text.decode() for text in answer]
    return dict(zip(names, zip(texts[::2], texts[1::2], strict=True), strict=True))


def _complaint(key: str, *, found: str, wanted: str) -> str:
    if key == keys.FORMAT:
        return (
            f"Redis holds format {found}, this segrelay knows {wanted}. "
            "Use the version that wrote it, or another Redis database."
        )
    if key == keys.PARTITIONS:
        count = Numbering.loads(found).count
        return (
            f"Redis is in use with {count} partitions, the configuration says {wanted}: profiles "
            f"would change their partition. Set redis.partitions = {count}, and change it by "
            f"`segrelay redis partitions {wanted}`."
        )
    return (
        f"Redis is in use with the identity `{found}`, the configuration says `{wanted}`: one "
        f'person would have two ledgers. Set delivery.identity = "{found}", or use another Redis.'
    )

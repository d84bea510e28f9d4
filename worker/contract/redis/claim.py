"""Claiming a Redis at first use: format, partition count and identity stay what they were then.

Another partition count would put one profile into two partitions, another identity would make two
keys of one person: both break the truth of what is delivered, so both are refused. Only `segrelay
redis partitions` changes the count; a configuration that names a former one is still right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, cast

from segrelay.worker.contract import keys
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script, run_each
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import PartitionsChange, RedisMismatch

FORMAT_NUMBER: Final = 1
_NAME_DESTINATIONS: Final = load_script("destinations_name")


def claim(client: Redis, settings: Settings) -> None:
    """Write format, partitions and identity to a new Redis, or compare them in one in use.

    Raises:
        RedisMismatch: Redis holds another format, partition count or identity.
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
    while not _named(client, settled_numbering(client, settings), settings.destinations):
        pass


def compare(client: Redis, settings: Settings) -> None:
    """Compare the configuration with the values that Redis was claimed with; write nothing.

    Raises:
        RedisMismatch: Redis holds another format, partition count or identity.
        RedisUnavailable: Redis can't be asked.
    """
    _is_new(client, _wanted(settings))
    learn_numbering(client, settings)


def learn_numbering(client: Redis, settings: Settings) -> Numbering:
    """Read the partitions that Redis has, and remember them in the settings.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    stored = cast("bytes | None", client.get(keys.PARTITIONS))
    settings.redis.learn(Numbering.loads(stored) if stored else None)
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


def name_destinations(client: Redis, numbering: Numbering, names: Collection[str]) -> None:
    """Register destinations in Redis, before anything else of them is written there.

    Raises:
        PartitionsChange: The number of partitions is being changed, or is another one by now.
        RedisUnavailable: Redis can't be asked.
    """
    if numbering.target or not _named(client, numbering, names):
        raise PartitionsChange


def mismatches(client: Redis, settings: Settings) -> list[str]:
    """Return why a Redis can't be used with this configuration; nothing is written.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    wanted = _wanted(settings)
    return _complaints(_read(client, wanted), wanted)


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


def _named(client: Redis, numbering: Numbering, names: Collection[str]) -> bool:
    if not names:
        return True
    args = (numbering.dumps(), *names)
    call = ScriptCall((keys.PARTITIONS, keys.DESTINATIONS), args)
    return bool(run_each(client, _NAME_DESTINATIONS, [call])[0])


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

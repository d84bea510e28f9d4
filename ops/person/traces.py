"""Traces of a person after they were erased: bytes of deleted entries, and exported files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from redis import Redis

from ops.person.mention import Mention
from ops.state import scripts
from ops.state.acts import EXPORTED_FILE
from ops.state.waiting import find_streams
from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.redis.acts import read_acts
from worker.contract.redis.scripts import ScriptCall

_LONGEST: Final = 5_000
"""Entries of a stream that is written anew in one step; Redis takes 0.1 s for them."""


def compact_streams(client: Redis, places: Iterable[PartitionKeys]) -> int:
    """Write streams anew that may hold bytes of deleted entries; returns how many are too long.

    Raises:
        RedisUnavailable: Redis can't be asked; do it again.
    """
    places = list(places)
    waiting = [one.place.stream(one.name) for one in find_streams(client, places)]
    logs = [name for place in places for name in (place.history, place.responses)]
    too_long = 0
    for name in (*waiting, *logs, keys.REQUESTS):
        (answer,) = scripts.run(client, "stream_compact", [ScriptCall((name,), (_LONGEST,))])
        too_long += answer < 0
    return too_long


def files_that_mention(client: Redis, mention: Mention) -> list[str]:
    """Return the files on this machine that were exported, and mention a person.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    found = {act.arguments.get(EXPORTED_FILE, "") for act in read_acts(client)} - {""}
    return sorted(name for name in found if _mentions(Path(name), mention))


def _mentions(path: Path, mention: Mention) -> bool:
    try:
        with path.open("rb") as file:
            return any(map(mention.stands_in, file))
    except OSError:
        return False

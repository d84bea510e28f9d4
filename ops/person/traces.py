"""Traces of a person: texts that mention them, bytes of deleted entries, and exported files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from redis import Redis

from ops.state import scripts
from ops.state.acts import EXPORTED_FILE
from ops.state.waiting import find_streams
from worker.contract import keys
from worker.contract.keys import PartitionKeys, digest_of
from worker.contract.redis.acts import read_acts
from worker.contract.redis.scripts import ScriptCall

_WORD: Final = re.compile(r"[^\s\"',;:<>|{}\[\]()\\\\=&]+")
_EMAIL: Final = "email"


@dataclass(frozen=True, slots=True)
class Mention:
    """The names by which a person is mentioned in Redis and files.

    Of a former identity only its digest is known, so words of a text are digested to find it.

    Args:
        digests: Under which the person is or was known.
        identity: The configured identity field.
        values: Of the identity, as far as they are known.
    """

    digests: frozenset[bytes]
    identity: str
    values: Sequence[str]

    def stands_in(self, text: bytes) -> bool:
        """Say whether a text has a value of the identity, or a digest, in hexadecimal notation."""
        plain = _plain(text)
        lower = plain.lower()
        hexadecimal = frozenset(digest.hex() for digest in self.digests)
        return any(value.lower() in lower for value in self.values) or any(
            word in hexadecimal or digest_of(f"{self.identity}:{word}") in self.digests
            for word in set(_WORD.findall(lower if self.identity == _EMAIL else plain))
        )


def value_of(profile_key: str) -> str:
    """Return the value of the identity in the key of a profile."""
    return profile_key.partition(":")[2]


def _plain(text: bytes) -> str:
    """Return a text with the escapes of JSON resolved, if it is JSON."""
    try:
        return orjson.dumps(orjson.loads(text)).decode()
    except orjson.JSONDecodeError:
        return text.decode(errors="replace")


_LONGEST: Final = 5_000
"""The longest stream, in entries, that is rewritten in one step; Redis takes 0.1 s for it."""


def compact_streams(client: Redis, places: Iterable[PartitionKeys]) -> int:
    """Rewrite streams that may hold bytes of deleted entries; return how many are too long.

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
    """Return the files on this machine that were exported, and mention a person."""
    found = {act.arguments.get(EXPORTED_FILE, "") for act in read_acts(client)} - {""}
    return sorted(name for name in found if _mentions(Path(name), mention))


def _mentions(path: Path, mention: Mention) -> bool:
    try:
        with path.open("rb") as file:
            return any(map(mention.stands_in, file))
    except OSError:
        return False

"""Import of exported dead letters; a letter that is there already is not added twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import orjson

from segrelay.ops.dead_letters.reading import (
    StoredDeadLetter,
    digest_of,
    place_of,
)
from segrelay.ops.dead_letters.replay import end_of, entry_of
from segrelay.ops.state import opened
from segrelay.ops.state.opened import insist
from segrelay.producer.events.values import profile_key
from segrelay.worker.batch.delivery import seal_dead_letter
from segrelay.worker.contract.events import decode_header
from segrelay.worker.contract.keys import PartitionKeys, partition_of, split_stream_name
from segrelay.worker.contract.keys import digest_of as profile_digest
from segrelay.worker.contract.outcomes import log_bytes, pack
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.claim import add_names
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import script_call
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import NAME_PATTERN, Death
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.errors import FormatUnknown, PayloadRefused

_STEP: Final = 200
_COLUMNS: Final = {
    "id": "id", "died": "last_at_ms", "cause": "cause", "stream": "stream", "reason": "reason",
}  # fmt: skip
"""The fields of a letter that `import.lua` takes as they are, by their names there."""
_LONGEST_REASON: Final = 40
_OTHERWISE_PROTECTED: Final = (
    "it comes from a Redis with another protection of people's data, or with another identity"
)
_TEXTS: Final = (
    "id", "destination", "trigger", "stream", "audience", "direction", "reason", "message",
    "cause", "template", "body", "answer",
)  # fmt: skip
_NUMBERS: Final = (
    "partition", "time_us", "replays", "status", "attempts", "first_at_ms", "last_at_ms",
)  # fmt: skip


@dataclass(slots=True)
class Imported:
    """The numbers of read and added lines of an import, and its problems."""

    lines: int
    added: int
    problems: list[dict[str, Any]]


def import_dead_letters(client: Redis, lines: Iterable[bytes], settings: Settings) -> Imported:
    """Put letters back into their partitions; importing them again changes nothing.

    Raises:
        RedisUnavailable: Some are there, others not; importing again is harmless.
    """
    imported = Imported(0, 0, [])
    numbered = ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
    while part := list(islice(numbered, _STEP)):
        groups: defaultdict[PartitionKeys, list[StoredDeadLetter]] = defaultdict(list)
        for number, line in part:
            dead_letter = _read(line, settings)
            if isinstance(dead_letter, str):
                imported.problems.append({"line": number, "reason": dead_letter})
            else:
                place = PartitionKeys(dead_letter["destination"], dead_letter["partition"])
                groups[place].append(dead_letter)
        imported.lines += len(part)
        imported.added += insist(partial(_write, client, settings, groups))
    return imported


def _write(
    client: Redis, settings: Settings, groups: Mapping[PartitionKeys, Sequence[StoredDeadLetter]]
) -> int:
    """Add letters of destinations, which may be unknown here."""
    add_names(client, settings, {place.destination for place in groups})
    calls = []
    for place, dead_letters in groups.items():
        letters = {column: [one[name] for one in dead_letters] for column, name in _COLUMNS.items()}
        letters["text"] = [_sealed(one) for one in dead_letters]
        letters["sample"] = [_sample(one) for one in dead_letters]
        ends = [pack(map(end_of, dead_letters)), log_bytes(settings)]
        calls.append(script_call(opened.source("import"), place, letters=letters, ends=ends))
    return sum(opened.run(client, "import", calls))


def _sealed(one: StoredDeadLetter) -> bytes:
    stored = {name: value for name, value in one.items() if name != "destination"}
    return seal_dead_letter(one["id"], digest_of(one), orjson.dumps(stored))


def _sample(one: StoredDeadLetter) -> bytes:
    same = {name: one[name] for name in ("reason", "status", "trigger")}
    message = normalise_message(one["message"])
    return orjson.dumps({**same, "message": message, "letter": one["id"]})


def _read(line: bytes, settings: Settings) -> StoredDeadLetter | str:
    """Return the letter of a line, or why the line holds none."""
    try:
        dead_letter: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"it is not JSON ({error.msg})"
    if not isinstance(dead_letter, dict):
        return "it is not an object"
    wrong = [name for name in _TEXTS if not isinstance(dead_letter.get(name), str)]
    wrong += [name for name in _NUMBERS if type(dead_letter.get(name)) is not int]
    if wrong:
        return f"it lacks {', '.join(wrong)}, or has something else in their place"
    return _misplaced(dead_letter, settings) or dead_letter


def _misplaced(dead_letter: StoredDeadLetter, settings: Settings) -> str:
    if (place_of(dead_letter["id"]) or ("", -1))[1] != dead_letter["partition"]:
        return "its id does not begin with a destination and its partition"
    names = (dead_letter["destination"], dead_letter["trigger"])
    if not all(map(NAME_PATTERN.fullmatch, names)):
        return "its destination or trigger is no name"
    if split_stream_name(dead_letter["stream"])[1] != dead_letter["trigger"]:
        return "its stream is not its trigger's"
    if dead_letter["reason"] not in {death.value for death in Death}:
        return f"there is no reason '{dead_letter['reason'][:_LONGEST_REASON]}'"
    return _foreign(dead_letter, settings)


def _foreign(dead_letter: StoredDeadLetter, settings: Settings) -> str:
    """Return the reason why a letter can't be put into this Redis; "" if it can."""
    if dead_letter["partition"] not in range(settings.redis.partitions):
        return "there is no such partition here"
    if "entry" in dead_letter:
        entry = entry_of(dead_letter)
        if not entry:
            return "its entry is not two texts in base64"
        return _OTHERWISE_PROTECTED if PROTECTION.is_foreign(entry[1]) else ""
    try:
        header = decode_header(orjson.dumps(dead_letter.get("header")))
    except PayloadRefused:
        return "" if dead_letter["reason"] == Death.UNREADABLE else "its header can't be read"
    except FormatUnknown as error:
        return error.message
    if not isinstance(dead_letter.get("profile"), dict):
        return "it has no profile"
    try:
        key = profile_key(dead_letter["profile"], settings.delivery.identity)
    except PayloadRefused:
        return ""
    belongs = partition_of(key, settings.redis.partitions) == dead_letter["partition"]
    if PROTECTION and belongs and profile_digest(key) != header.digest:
        return _OTHERWISE_PROTECTED
    if profile_digest(key) != header.digest or not belongs:
        return "it comes from a Redis with another identity or number of partitions"
    return ""

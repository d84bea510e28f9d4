"""Import of exported dead letters; a letter that is there already is not added twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import orjson
from redis import Redis

from ops.letters.reading import NUMBERS_CHANGED, StoredLetter, digest_of, letter_id_in, place_of
from ops.letters.replay import entry_of
from ops.state import scripts
from ops.state.opened import insist
from producer.events.identity import profile_key
from worker.contract.events import decode_header
from worker.contract.keys import PartitionKeys, split_stream_name
from worker.contract.keys import digest_of as profile_digest
from worker.contract.numbering import Numbering
from worker.contract.redis.claim import name_destinations
from worker.contract.redis.scripts import ScriptCall, Value
from worker.contract.settings import Settings
from worker.contract.words import NAME_PATTERN, Death
from worker.core.messages import normalise_message
from worker.errors import FormatUnknown, PartitionsChange, PayloadRefused

_STEP: Final = 200
_LONGEST_REASON: Final = 40
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


def import_letters(
    client: Redis, lines: Iterable[bytes], settings: Settings, partitions: Numbering
) -> Imported:
    """Put letters back into their partitions; importing them again changes nothing.

    Raises:
        RedisUnavailable: Some are there, others not; importing again is harmless.
    """
    imported = Imported(0, 0, [])
    numbered = ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
    while part := list(islice(numbered, _STEP)):
        groups: defaultdict[PartitionKeys, list[StoredLetter]] = defaultdict(list)
        for number, line in part:
            letter = _read(line, settings, partitions)
            if isinstance(letter, str):
                imported.problems.append({"line": number, "reason": letter})
            else:
                groups[PartitionKeys(letter["destination"], letter["partition"])].append(letter)
        imported.lines += len(part)
        imported.added += insist(partial(_write, client, groups, partitions))
    return imported


def _write(
    client: Redis, groups: dict[PartitionKeys, list[StoredLetter]], partitions: Numbering
) -> int:
    name_destinations(client, partitions, {place.destination for place in groups})
    calls = [
        ScriptCall(
            (place.counts, place.letters, place.lettertimes, place.causes, place.lease),
            list(import_arguments(letters)),
        )
        for place, letters in groups.items()
    ]
    added = scripts.run(client, "import", calls)
    if NUMBERS_CHANGED in added:
        raise PartitionsChange
    return sum(added)


def import_arguments(letters: Sequence[StoredLetter]) -> Iterator[Value]:
    """Yield the arguments of the script that adds letters."""
    for letter in letters:
        sample = {
            "reason": letter["reason"],
            "status": letter["status"],
            "message": normalise_message(letter["message"]),
            "trigger": letter["trigger"],
            "letter": letter["id"],
        }
        yield letter["id"]
        yield orjson.dumps(letter)
        yield letter["last_at_ms"]
        yield letter["cause"]
        yield orjson.dumps(sample)
        yield letter["stream"]
        yield letter["reason"]


def _read(line: bytes, settings: Settings, partitions: Numbering) -> StoredLetter | str:
    """Return the letter of a line, or why the line holds none."""
    try:
        letter: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"it is not JSON ({error.msg})"
    if not isinstance(letter, dict):
        return "it is not an object"
    wrong = [name for name in _TEXTS if not isinstance(letter.get(name), str)]
    wrong += [name for name in _NUMBERS if type(letter.get(name)) is not int]
    if wrong:
        return f"it lacks {', '.join(wrong)}, or has something else in their place"
    return _misplaced(letter, settings, partitions) or _placed(letter, partitions)


def _placed(letter: StoredLetter, partitions: Numbering) -> StoredLetter:
    """Return a letter with the present partition of its profile, wherever it was exported from."""
    if letter["partition"] >= partitions.first:
        return letter
    digest = digest_of(letter)
    number = partitions.of_digest(bytes.fromhex(digest)) if digest else partitions.first
    place = PartitionKeys(letter["destination"], number)
    return {**letter, "id": letter_id_in(place, letter["id"]), "partition": number}


def _misplaced(letter: StoredLetter, settings: Settings, partitions: Numbering) -> str:
    if place_of(letter["id"]) != (letter["destination"], letter["partition"]):
        return "its id does not begin with its destination and partition"
    names = (letter["destination"], letter["trigger"])
    if not all(map(NAME_PATTERN.fullmatch, names)):
        return "its destination or trigger is no name"
    if split_stream_name(letter["stream"])[1] != letter["trigger"]:
        return "its stream is not its trigger's"
    if letter["reason"] not in {death.value for death in Death}:
        return f"there is no reason '{letter['reason'][:_LONGEST_REASON]}'"
    return _foreign(letter, settings, partitions)


def _foreign(letter: StoredLetter, settings: Settings, partitions: Numbering) -> str:
    """Return the reason why a letter can't be put into this Redis; "" if it can."""
    if letter["partition"] not in range(partitions.numbers.stop):
        return "there is no such partition here"
    if "entry" in letter:
        return "" if entry_of(letter) else "its entry is not two texts in base64"
    try:
        header = decode_header(orjson.dumps(letter.get("header")))
    except PayloadRefused:
        return "" if letter["reason"] == Death.UNREADABLE else "its header can't be read"
    except FormatUnknown as error:
        return error.message
    if not isinstance(letter.get("profile"), dict):
        return "it has no profile"
    try:
        key = profile_key(letter["profile"], settings.delivery.identity)
    except PayloadRefused:
        return ""
    is_former = letter["partition"] < partitions.first
    belongs = is_former or partitions.of(key) == letter["partition"]
    if profile_digest(key) != header.digest or not belongs:
        return "it comes from a Redis with another identity or number of partitions"
    return ""

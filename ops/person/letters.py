"""Moving the letters of renamed people to the partitions of their new identities.

A letter leaves its partition for the list of those that are on their way, in one step with its
counts. It is added where it belongs, with a mark that it has come, before it goes from that list;
the marks go last. So a letter is never in two places, and moving it again from wherever it was
interrupted changes nothing, even if the letter was replayed meanwhile.

What can't be read stays where it is: the record of the former identity says whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from redis import Redis

from ops.letters.files import import_arguments
from ops.letters.reading import (
    NUMBERS_CHANGED,
    Filter,
    StoredLetter,
    digest_of,
    find_letters,
    parse_letter,
)
from ops.letters.replay import letter_header
from ops.moving.carrying import in_parts
from ops.moving.held import HeldLease, held
from ops.state import scripts
from worker.contract.events import encode_header
from worker.contract.keys import PartitionKeys
from worker.contract.keys import digest_of as digest_of_key
from worker.contract.people.forwards import with_identity
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import ScriptCall, Value
from worker.errors import OperationsMustAct, PartitionsChange

_OWNER: Final = "segrelay person rename"
_REFUSED: Final = -1
_STEP: Final = 50
"""Letters moved in one call; one may hold a profile of a megabyte."""


@dataclass(frozen=True, slots=True)
class LetterMove:
    """One person whose letters go to another identity, at one destination.

    Args:
        key: The key of the profile from now on.
        arriving: The record of the new identity; once it is another one, nothing may come.
    """

    left: PartitionKeys
    arrives: PartitionKeys
    old_digest: bytes
    key: str
    arriving: bytes


def move_letters(client: Redis, moves: Sequence[LetterMove]) -> None:
    """Move all letters of these people that can be read.

    Raises:
        OperationsMustAct: Somebody keeps a lease, or the person was erased; do it again.
        RedisUnavailable: Do it again.
    """
    for place in dict.fromkeys(move.left for move in moves):
        those = {move.old_digest.hex(): move for move in moves if move.left == place}
        wanted = Filter(digests=frozenset(those))
        leaving = [
            (letter["id"], letter["cause"], letter["stream"], letter["reason"])
            for letter in find_letters(client, [place], wanted)
            if letter_header(letter)
        ]
        if leaving:
            _leave(client, place, leaving)
        for letters in _on_their_way(client, place):
            own = [letter for letter in letters if digest_of(letter) in those]
            _arrive(client, [(letter, those[digest_of(letter)]) for letter in own])
            _forget(client, place, [letter["id"] for letter in own])
    _forget_marks(client, moves)


def _leave(client: Redis, place: PartitionKeys, rows: Sequence[tuple[str, ...]]) -> None:
    """Take letters out of their partition."""
    names: list[str | bytes] = [
        place.counts, place.letters, place.lettertimes, place.causes, place.lettersleaving,
    ]  # fmt: skip
    with held(HeldLease(client, place, _OWNER)) as lease:
        for part in in_parts(rows, _STEP):
            lease.hold()
            args: list[Value] = [each for row in part for each in row]
            lease.run("letters_out", names, args)


def _on_their_way(client: Redis, place: PartitionKeys) -> Iterator[list[StoredLetter]]:
    with redis_errors():
        ids: Any = client.hkeys(place.lettersleaving)
    for part in in_parts(ids, _STEP):
        with redis_errors():
            texts: Any = client.hmget(place.lettersleaving, part)
        yield [parse_letter(text) for text in texts if text is not None]


def _arrive(client: Redis, letters: Sequence[tuple[StoredLetter, LetterMove]]) -> None:
    calls = []
    for letter, move in letters:
        to = move.arrives
        names = (to.counts, to.letters, to.lettertimes, to.causes, to.lease)
        args = list(import_arguments([_moved(letter, move)]))
        digest = digest_of_key(move.key).hex()
        calls.append(
            ScriptCall((*names, _marks(move), to.forwards), [*args, digest, move.arriving])
        )
    answers = scripts.run(client, "import", calls)
    if NUMBERS_CHANGED in answers:
        raise PartitionsChange
    if _REFUSED in answers:
        raise OperationsMustAct(
            "Somebody else renames or erases the same people at this moment; run this again once"
            " they are ready. What is done stays done."
        )


def _moved(letter: StoredLetter, move: LetterMove) -> StoredLetter:
    """Return a letter as it is under the new identity; an id begins with its place."""
    header = letter_header(letter)
    assert header is not None
    header = header._replace(digest=digest_of_key(move.key))
    place = move.arrives
    short = letter["id"].rpartition(".")[2]
    return {
        **letter,
        "id": f"{place.destination}.{place.partition}.{short}",
        "destination": place.destination,
        "partition": place.partition,
        "header": orjson.loads(encode_header(header)),
        "profile": with_identity(letter["profile"], move.key),
    }


def _forget(client: Redis, place: PartitionKeys, ids: Sequence[str]) -> None:
    if ids:
        with redis_errors():
            client.hdel(place.lettersleaving, *ids)


def _marks(move: LetterMove) -> str:
    return move.arrives.carried(move.old_digest.hex())


def _forget_marks(client: Redis, moves: Sequence[LetterMove]) -> None:
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        for move in moves:
            pipe.unlink(_marks(move))
        pipe.execute()

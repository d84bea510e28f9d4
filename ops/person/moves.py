"""The change of one person's identity, and the moving of their letters.

A letter leaves its partition for the list of those that are on their way, in one step with its
counts. It is added where it belongs, with a mark that it has come, before it goes from that list;
the marks go last. So a letter is never in two places, and moving it again from wherever it was
interrupted changes nothing, even if the letter was replayed meanwhile.

What can't be read stays where it is: the record of the former identity says whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from redis import Redis

from ops.letters.files import import_arguments
from ops.letters.reading import NUMBERS_CHANGED, Filter, StoredLetter, find_letters, parse_letter
from ops.letters.reading import digest_of as digest_of_letter
from ops.letters.replay import letter_header
from ops.moving.carrying import in_parts
from ops.moving.held import HeldLease, held
from ops.state import scripts
from ops.state.partitions import ask_each
from worker.contract.events import encode_header
from worker.contract.keys import PartitionKeys, digest_of
from worker.contract.people.forwards import Forward, with_identity
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import ScriptCall, Value
from worker.errors import OperationsMustAct, PartitionsChange

Outcome = Literal["renamed", "already", "refused"]


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """The change of one person's profile key, from the former to the new one.

    Args:
        line: Of the file; 0 = of the command line.
        stable, trigger: Of a person who is renamed by themselves; see `contract.forwards`.
    """

    old: str
    new: str
    line: int = 0
    stable: str = ""
    trigger: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one identity change, over all destinations."""

    change: IdentityChange
    outcome: Outcome
    message: str = ""


@dataclass(slots=True)
class PersonMove:
    """The change of one person's identity at one destination.

    Args:
        text: The record of the former identity as it is in Redis; b"" = there is none.
        arriving: That of the new identity.
        is_ours: Nobody else renames this person.
    """

    change: IdentityChange
    left: PartitionKeys
    arrives: PartitionKeys
    text: bytes = b""
    arriving: bytes = b""
    outcome: Outcome | None = None
    message: str = ""
    is_ours: bool = False

    @property
    def forward(self) -> Forward:
        """Return the record of the former identity."""
        return Forward.loads(self.text)

    @property
    def old_digest(self) -> bytes:
        """Return the digest of the former identity."""
        return digest_of(self.change.old)

    @property
    def new_digest(self) -> bytes:
        """Return the digest of the new identity."""
        return digest_of(self.change.new)

    def refuse(self, message: str) -> None:
        """Record that the change was refused, and why; the person stays as they are."""
        self.outcome, self.message = "refused", message


_OWNER: Final = "segrelay person rename"
_REFUSED: Final = -1
_STEP: Final = 50
"""Letters moved in one call: few, because a letter may hold a profile of a megabyte."""


def move_letters(client: Redis, moves: Sequence[PersonMove]) -> None:
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
            own = [letter for letter in letters if digest_of_letter(letter) in those]
            _arrive(client, [(letter, those[digest_of_letter(letter)]) for letter in own])
            if own:
                with redis_errors():
                    client.hdel(place.lettersleaving, *(letter["id"] for letter in own))
    ask_each(client, moves, lambda pipe, move: pipe.unlink(_marks(move)))


def _leave(client: Redis, place: PartitionKeys, rows: Sequence[tuple[str, ...]]) -> None:
    """Take letters out of their partition's dead letters, and keep them as `lettersleaving`."""
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


def _arrive(client: Redis, letters: Sequence[tuple[StoredLetter, PersonMove]]) -> None:
    calls = []
    for letter, move in letters:
        to = move.arrives
        names = (to.counts, to.letters, to.lettertimes, to.causes, to.lease)
        args = list(import_arguments([_moved(letter, move)]))
        digest = move.new_digest.hex()
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


def _moved(letter: StoredLetter, move: PersonMove) -> StoredLetter:
    """Return a letter with the new identity, partition and id."""
    header = letter_header(letter)
    assert header is not None
    header = header._replace(digest=move.new_digest)
    place = move.arrives
    short = letter["id"].rpartition(".")[2]
    return {
        **letter,
        "id": f"{place.destination}.{place.partition}.{short}",
        "destination": place.destination,
        "partition": place.partition,
        "header": orjson.loads(encode_header(header)),
        "profile": with_identity(letter["profile"], move.change.new),
    }


def _marks(move: PersonMove) -> str:
    return move.arrives.carried(move.old_digest.hex())

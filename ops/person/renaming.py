"""Renaming people: Insider, the ledger, what waits, letters and sync members follow the person.

A record in the partition of the former identity says how far it has come, at each destination.
While it is under way, nothing is delivered under either identity. A command that was killed is
given again, and goes on where the record stands:

1. `begun`: the record is written; syncs know the former identity no more.
2. Everybody has gone who held a lease before that, and no request for the person is unanswered.
3. `asked`, then `renamed`: Insider has given its profile the new identifier.
4. The ledgers are merged, under the lease of the new identity's partition. Merging them again
   changes nothing.
5. The letters are moved, see `move_dead_letters`.
6. `done`: the former ledger is gone, in the same step; whatever comes under the former identity is
   handed on by whoever holds the lease.

The change of one person's identity, and the moving of their letters.

A letter leaves its partition for the list of those that are on their way, in one step with its
counts. It is added where it belongs, with a mark that it has come, before it goes from that list;
the marks go last. So a letter is never in two places, and moving it again from wherever it was
interrupted changes nothing, even if the letter was replayed meanwhile.

What can't be read stays where it is: the record of the former identity says whose it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import orjson

from segrelay.ops.dead_letters.files import import_call
from segrelay.ops.dead_letters.reading import (
    StoredDeadLetter,
    find_dead_letters,
    parse_dead_letter,
)
from segrelay.ops.dead_letters.reading import digest_of as digest_of_dead_letter
from segrelay.ops.dead_letters.replay import dead_letter_header
from segrelay.ops.insider.reader import InsiderIdentities
from segrelay.ops.kept import Filter
from segrelay.ops.moving.carrying import in_parts
from segrelay.ops.moving.leases import HeldLease, await_holders, held
from segrelay.ops.state import opened
from segrelay.ops.state.partitions import ask_each, known_destinations
from segrelay.ops.state.person import end_renaming, tell_renaming
from segrelay.worker.adapters.redis.lease import boottime_seconds
from segrelay.worker.batch.partition import LedgerText
from segrelay.worker.contract.events import encode_header
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.ledger import unpack
from segrelay.worker.contract.people import Forward, Moving, with_identity
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.scripts import ScriptCall, Value
from segrelay.worker.contract.settings import Settings
from segrelay.worker.core.ledger import merged
from segrelay.worker.errors import OperationsMustAct

Outcome = Literal["renamed", "already", "refused"]


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """The change of one person's profile key, from the former to the new one.

    Args:
        line: Of the file; 0 = of the command line.
        stable, trigger: Of a person who is renamed by themselves; see `contract.people`.
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


_REFUSED: Final = -1
_STEP: Final = 50
"""Letters moved in one call: few, because a letter may hold a profile of a megabyte."""


def move_dead_letters(client: Redis, moves: Sequence[PersonMove]) -> None:
    """Move all letters of these people that can be read.

    Raises:
        OperationsMustAct: Somebody keeps a lease, or the person was erased; do it again.
        RedisUnavailable: Do it again.
    """
    for partition in dict.fromkeys(move.left for move in moves):
        those = {move.old_digest.hex(): move for move in moves if move.left == partition}
        wanted = Filter(digests=frozenset(those))
        leaving = [
            (
                *(dead_letter["id"], dead_letter["cause"], dead_letter["stream"]),
                *(dead_letter["reason"], digest_of_dead_letter(dead_letter)),
            )
            for dead_letter in find_dead_letters(client, [partition], wanted)
            if dead_letter_header(dead_letter)
        ]
        if leaving:
            _leave(client, partition, leaving)
        for dead_letters in _on_their_way(client, partition):
            own = [
                dead_letter
                for dead_letter in dead_letters
                if digest_of_dead_letter(dead_letter) in those
            ]
            _arrive(
                client,
                [(dead_letter, those[digest_of_dead_letter(dead_letter)]) for dead_letter in own],
            )
            if own:
                client.hdel(
                    partition.dead_letters_leaving, *(dead_letter["id"] for dead_letter in own)
                )
    ask_each(client, moves, lambda pipe, move: pipe.unlink(_marks(move)))


def _leave(client: Redis, partition: PartitionKeys, rows: Sequence[tuple[str, ...]]) -> None:
    """Take dead letters out of their partition, and keep them as `dead_letters_leaving`."""
    names: list[str | bytes] = [
        partition.counts, partition.dead_letters, partition.dead_letter_times, partition.causes,
        partition.dead_letters_leaving,
    ]  # fmt: skip
    with held(HeldLease(client, partition, _OWNER)) as lease:
        for part in in_parts(rows, _STEP):
            lease.hold()
            args: list[Value] = [each for row in part for each in row]
            lease.run("letters_out", names, args)


def _on_their_way(client: Redis, partition: PartitionKeys) -> Iterator[list[StoredDeadLetter]]:
    ids: Any = client.hkeys(partition.dead_letters_leaving)
    for part in in_parts(ids, _STEP):
        texts: Any = client.hmget(partition.dead_letters_leaving, part)
        yield [parse_dead_letter(text) for text in texts if text is not None]


def _arrive(client: Redis, dead_letters: Sequence[tuple[StoredDeadLetter, PersonMove]]) -> None:
    # It was dead before and is dead still, so no row tells of it.
    calls = [
        import_call(
            move.arrives,
            [_moved(dead_letter, move)],
            carried=_marks(move),
            forwards=move.arrives.forwards,
            person=[move.new_digest.hex(), move.arriving],
            ends=(),
        )
        for dead_letter, move in dead_letters
    ]
    answers = opened.run(client, "import", calls)
    if _REFUSED in answers:
        raise OperationsMustAct(
            "Somebody else renames or erases the same people at this moment; run this again once"
            " they are ready. What is done stays done."
        )


def _moved(dead_letter: StoredDeadLetter, move: PersonMove) -> StoredDeadLetter:
    """Return a letter with the new identity, partition and id."""
    header = dead_letter_header(dead_letter)
    assert header is not None
    header = header._replace(digest=move.new_digest)
    partition = move.arrives
    short = dead_letter["id"].rpartition(".")[2]
    return {
        **dead_letter,
        "id": f"{partition.id}.{partition.number}.{short}",
        "partition": partition.number,
        "header": orjson.loads(encode_header(header)),
        "profile": with_identity(dead_letter["profile"], move.change.new),
    }


def _marks(move: PersonMove) -> str:
    return move.arrives.carried(move.old_digest.hex())


AT_ONCE: Final = 500
"""The number of people who are moved together: each group waits once for holders of leases."""
_ANSWER_SECONDS: Final = 120.0
"""Seconds to wait for an answer: an unanswered request stays open for `delivery.late` after its
deadline."""
_LOOK_SECONDS: Final = 0.2
_TOLD_SECONDS: Final = 10.0
_ASKED_SECONDS: Final = 10.0
"""Seconds in which a request to Insider has to be sent after `asked` was written; shorter than the
lock of a step. After that it has to be written again, which is refused if somebody went on."""
_OWNER: Final = "segrelay rename person"


@dataclass(slots=True)
class PersonRenaming:
    """Renames people, a group at a time.

    Args:
        identities: By destination, of those at Insider.
        identifier: Gives Insider's identifier for the key of a profile.
        destinations: Those at which people are renamed; by default all that are known, under their
            present names.
        stands: A function that says whether a change is still to be made.
        tells: A function that is called before each person, and may raise to end the renaming.
        waits_for_answers: True if to wait for the end of open requests about a person, who is left
            to a later renaming otherwise.

    Attributes:
        refused: The changes that Insider refuses.
    """

    client: Redis
    settings: Settings
    identities: Mapping[str, InsiderIdentities]
    identifier: Callable[[str], Mapping[str, Any]]
    sleep: Callable[[float], None] = time.sleep
    destinations: Sequence[str] = ()
    boottime: Callable[[], float] = boottime_seconds
    stands: Callable[[IdentityChange], bool] = lambda _: True
    tells: Callable[[], None] = lambda: None
    waits_for_answers: bool = True
    refused: list[IdentityChange] = field(default_factory=list, init=False)
    _going: list[PersonMove] = field(default_factory=list, init=False)
    _told_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.destinations = self.destinations or known_destinations(self.client, self.settings)

    def run(self, changes: Sequence[IdentityChange]) -> list[Receipt]:
        """Rename people, none of whom is named twice.

        Raises:
            OperationsMustAct: Somebody keeps a lease, or Insider does not answer; do it again.
            RedisUnavailable: Do it again.
        """
        moves = [self._move_of(change, name) for change in changes for name in self.destinations]
        for move in moves:
            self._begin(move)
        self._going = [move for move in moves if move.outcome is None]
        if self._going:
            partitions = (
                partition for move in self._going for partition in (move.left, move.arrives)
            )
            await_holders(self.client, list(dict.fromkeys(partitions)), self._wait)
            self._await_answers(self._going)
            for move in self._going:
                self._tell()
                self._ask(move)
            left = [move for move in self._going if move.outcome is None]
            self._merge(left)
            self._take_dead_letters(left)
            for move in self._going:
                self._end(move)
        end_renaming(self.client, {move.old_digest for move in moves if move.is_ours})
        return [_receipt(change, moves) for change in changes]

    def _wait(self, seconds: float) -> None:
        self._tell()
        self.sleep(seconds)

    def _tell(self) -> None:
        """Report from time to time that the renaming goes on, so that health does not warn."""
        if time.monotonic() - self._told_at >= _TOLD_SECONDS:
            tell_renaming(self.client, [move.old_digest for move in self._going])
            self._told_at = time.monotonic()
        self.tells()

    def _move_of(self, change: IdentityChange, destination: str) -> PersonMove:
        redis = self.settings.redis
        left, arrives = (
            redis.ids.partition(destination, partition_of(key, redis.partitions))
            for key in (change.old, change.new)
        )
        return PersonMove(change, left, arrives)

    def _begin(self, move: PersonMove) -> None:
        """Write the records of the former and the new identity, or find those that exist."""
        if not self.stands(move.change):
            move.refuse("somebody else has ended the change")
            return
        move.text = self._record(move.left, move.old_digest)
        if move.text and move.forward.to != move.change.new:
            move.refuse("the former identity was renamed to another one, or is being renamed")
        elif move.text and move.forward.moving is Moving.DONE:
            self._find_done(move)
        elif self._announce(move) and not move.text:
            change = move.change
            arrives, at_ms = move.arrives.number, now_ms(self.client)
            begun = Forward(Moving.BEGUN, change.new, arrives, at_ms, change.stable, change.trigger)
            self._set(move, begun, takes_members=True)

    def _find_done(self, move: PersonMove) -> None:
        """Complete a change that a killed command had nearly finished."""
        move.outcome, move.is_ours = "already", True
        move.arriving = _arriving(move)
        if self._record(move.arrives, move.new_digest) == move.arriving:
            self._arrive(move, {})
            move.outcome = "renamed"

    def _announce(self, move: PersonMove) -> bool:
        """Hold back deliveries of the new identity; undo an earlier renaming of that identity.

        Whoever stood still behind the look, while others ended the change, would hold them back for
        ever: the record is gone again, and only the number of arrivals tells.
        """
        arrived: Any = self.client.hget(move.arrives.lease, "arrived") or b"0"
        found, arriving = self._record(move.arrives, move.new_digest), _arriving(move)
        if found not in (b"", arriving) and Forward.loads(found).moving is not Moving.DONE:
            move.refuse("the new identity is being renamed, or given to somebody else")
            return False
        move.arriving, move.is_ours = arriving, True
        tell_renaming(self.client, [move.old_digest])
        if found != arriving:
            args: list[str | bytes] = [move.new_digest.hex(), found, arriving, "", arrived]
            self._run(move, "forward", (move.arrives.forwards, move.arrives.lease), args)
        return True

    def _record(self, partition: PartitionKeys, digest: bytes) -> bytes:
        found: Any = self.client.hget(partition.forwards, digest.hex())
        return found or b""

    def _set(self, move: PersonMove, forward: Forward, *, takes_members: bool = False) -> None:
        syncs = list(self.settings.sync) if takes_members else []
        names = (move.left.forwards, move.left.lease, *map(move.left.members, syncs))
        text = forward.dumps()
        digest = move.old_digest.hex()
        name = PROTECTION.seal_name(move.change.old)
        args: list[str | bytes] = [digest, move.text, text, name, "", *syncs]
        self._run(move, "forward", names, args)
        move.text = text

    def _run(
        self,
        move: PersonMove,
        name: str,
        keys: Iterable[str | bytes],
        args: Iterable[str | bytes],
    ) -> None:
        (answer,) = opened.run(self.client, name, [ScriptCall(tuple(keys), tuple(args))])
        if answer == 0:
            end_renaming(self.client, {move.old_digest})  # whoever is at it tells of it again
            raise OperationsMustAct(
                "Somebody else renames the same people at this moment; run this again once they"
                " are ready. What is done stays done."
            )
        if answer == 2:  # noqa: PLR2004 - what the script says
            raise _unanswered()

    def _await_answers(self, moves: Sequence[PersonMove]) -> None:
        """Wait until no request is open that may still tell the ledger of a former identity."""
        if not self.waits_for_answers:
            for move in moves:
                if self._is_unanswered(move):
                    move.refuse("a request about this person has got no sure answer yet")
            return
        ends_at = time.monotonic() + _ANSWER_SECONDS
        left = list(moves)
        while left := [move for move in left if self._is_unanswered(move)]:
            if time.monotonic() > ends_at:
                raise _unanswered()
            self._wait(_LOOK_SECONDS)

    def _is_unanswered(self, move: PersonMove) -> bool:
        intents: Any = self.client.hvals(move.left.intents)
        digest = move.old_digest.hex().encode()
        return any(digest in intent for intent in intents)

    def _ask(self, move: PersonMove) -> None:
        """Have Insider rename the person, unless it has done that before."""
        if move.outcome is not None:
            return
        if not self.stands(move.change):
            self._undo(move, "somebody else has ended the change")
            return
        insider = self.identities.get(move.left.destination)
        forward = move.forward
        if forward.moving is Moving.RENAMED:
            return
        if insider:
            old, new = self.identifier(move.change.old), self.identifier(move.change.new)
            said = insider.rename(old, new, _Asking(self, move))
            # Whom Insider does not know (any more) under the former identity, it need not rename.
            if said is not None and insider.is_known(old):
                self._undo(move, f"Insider refuses it ({said})")
                self.refused.append(move.change)
                return
        self._set(move, replace(forward, moving=Moving.RENAMED))

    def claim(self, move: PersonMove) -> float:
        """Record that Insider will be asked; return until when that may happen (boot time)."""
        self._tell()
        began_at = self.boottime()
        self._set(move, replace(move.forward, moving=Moving.ASKED))
        return began_at + _ASKED_SECONDS

    def _merge(self, moves: Sequence[PersonMove]) -> None:
        """Merge the ledger records of both identities into the record of the new one."""
        for partition in dict.fromkeys(move.arrives for move in moves):
            those = [move for move in moves if move.arrives == partition]
            with held(HeldLease(self.client, partition, _OWNER)) as lease:
                names: list[str | bytes] = []
                args: list[Value] = [self._retention_ms]
                for move, (old, new) in zip(those, self._ledgers(those), strict=True):
                    if old:
                        text, lasts = LedgerText.of(merged(unpack(new), unpack(old)))
                        names.append(partition.ledger(move.new_digest))
                        args += (text, int(lasts))
                if names:
                    lease.run("ledgers_in", names, args)
            self._tell()

    def _take_dead_letters(self, moves: Sequence[PersonMove]) -> None:
        """Move the letters of these people to their new identities."""
        self._tell()
        move_dead_letters(self.client, moves)

    def _ledgers(self, moves: Sequence[PersonMove]) -> list[tuple[bytes | None, bytes | None]]:
        found = ask_each(
            self.client,
            moves,
            lambda pipe, move: pipe.get(move.left.ledger(move.old_digest)),
            lambda pipe, move: pipe.get(move.arrives.ledger(move.new_digest)),
        )
        return list(zip(found[::2], found[1::2], strict=True))

    @property
    def _retention_ms(self) -> int:
        return round(1000 * self.settings.delivery.ledger_retention_seconds)

    def _end(self, move: PersonMove) -> None:
        if move.outcome is not None:
            return
        left, digest = move.left, move.old_digest.hex()
        marks = self._marks(move)
        done = replace(move.forward, moving=Moving.DONE).dumps()
        # The marks come there before they go here.
        if marks:
            self._arrive(move, marks, ends=False)
        self._run(
            move,
            "forward_left",
            (
                left.forwards,
                left.lease,
                left.ledger(move.old_digest),
                left.intents,
                left.reached,
                left.who,
            ),
            (digest, move.text, done, *(f"{digest}|{name}" for name in marks)),
        )
        self._arrive(move, {})
        move.outcome = "renamed"

    def _marks(self, move: PersonMove) -> dict[str, bytes]:
        """Return the marks of the person as a member, by the syncs that know them."""
        names = list(self.settings.sync)
        if not names:
            return {}
        fields = [f"{move.old_digest.hex()}|{name}" for name in names]
        found: Any = self.client.hmget(move.left.forwards, fields)
        return {name: mark for name, mark in zip(names, found, strict=True) if mark is not None}

    def _arrive(
        self, move: PersonMove, marks: Mapping[str, bytes], *, ends: bool = True, back: bool = False
    ) -> None:
        """End the move at a partition; syncs know the person there from now on."""
        partition, digest, text, key = (
            (move.left, move.old_digest, move.text, move.change.old)
            if back
            else (move.arrives, move.new_digest, move.arriving, move.change.new)
        )
        names = (partition.forwards, partition.lease, *map(partition.members, marks))
        record = b"" if ends else text
        name = PROTECTION.seal_name(key)
        args: list[str | bytes] = [digest.hex(), text, record, name, *marks.values()]
        self._run(move, "forward_arrived", names, args)

    def _undo(self, move: PersonMove, message: str) -> None:
        """Cancel the change: the person stays as they were, and both identities get deliveries."""
        marks = self._marks(move)
        self._arrive(move, marks, back=True)
        if marks:
            fields = [f"{move.old_digest.hex()}|{name}" for name in marks]
            self.client.hdel(move.left.forwards, *fields)
        if move.arriving:
            self._arrive(move, {})
        move.refuse(message)


@dataclass(slots=True)
class _Asking:
    """The claim to ask Insider about one person; see `segrelay.ops.insider.reader.RequestClaim`."""

    renaming: PersonRenaming
    move: PersonMove
    _until: float = 0.0

    def renew(self) -> None:
        self._until = self.renaming.claim(self.move)

    def holds(self) -> bool:
        return self.renaming.boottime() < self._until


def _arriving(move: PersonMove) -> bytes:
    """Return the record that announces a new identity, with the digest of the former one."""
    return Forward(Moving.ARRIVING, move.old_digest.hex()).dumps()


def _unanswered() -> OperationsMustAct:
    return OperationsMustAct(
        "A request about somebody who is renamed has got no sure answer yet. A worker has to run;"
        " run this again in a minute. What is done stays done."
    )


def _receipt(change: IdentityChange, moves: Sequence[PersonMove]) -> Receipt:
    own = [move for move in moves if move.change is change]
    refused = next((move for move in own if move.outcome == "refused"), None)
    if refused:
        return Receipt(change, "refused", f"{refused.left.destination}: {refused.message}")
    is_new = any(move.outcome == "renamed" for move in own)
    return Receipt(change, "renamed" if is_new else "already")

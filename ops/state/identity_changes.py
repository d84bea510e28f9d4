"""Changes of identity that stable ids have shown: which are to be made, and which are refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import orjson

from segrelay.ops.state import opened
from segrelay.ops.state.person import ForwardedPerson, former_identities
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of, stable_partition
from segrelay.worker.contract.people import StableIdChange, StableRecord
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_fields
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.settings import RedisSettings, Settings
from segrelay.worker.errors import OperationsMustAct

Ending = Literal["renamed", "refused", "left"]
"""The endings of a change. `left`: somebody else has the former identity now; late events under it
go to the new one."""
ChangeVerdict = Literal["go", "wait", "refused", "left"]


@dataclass(frozen=True, slots=True)
class RenamedPeople:
    """Counts of the people at a destination who were renamed automatically, or could not be.

    Args:
        refused: The number of those that could not be: they went on as other people.
        refused_ms: The time of the last refusal; 0 = never.
        problem: The reason why the last step came to nothing; "" = it did not.
    """

    renamed: int = 0
    refused: int = 0
    refused_ms: int = 0
    waiting: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class IdentityChanges:
    """The changes of one destination that wait to be made."""

    client: Redis
    redis: RedisSettings
    destination: str

    def waiting(self, most: int) -> dict[bytes, StableIdChange]:
        """Return waiting changes, at most `most`, by the digest of their stable id."""
        return dict(islice(self._all(), most))

    def _all(self) -> Iterator[tuple[bytes, StableIdChange]]:
        for number in range(self.redis.partitions):
            partition = self._at(number)
            for name, text in chain.from_iterable(scan_fields(self.client, partition.changes)):
                yield bytes.fromhex(name.decode()), StableIdChange.loads(text)

    def change_of(self, stable: bytes) -> StableIdChange | None:
        """Return the change of a stable id, if it has one now."""
        text: Any = self.client.hget(self._home(stable).changes, stable.hex())
        return StableIdChange.loads(text) if text else None

    def judge(self, stable: bytes, change: StableIdChange) -> ChangeVerdict:
        """Say whether a change may be made: nobody else may have the former or the new identity.

        Somebody who is about to leave the new identity is waited for. People who exchange their
        identities are refused.
        """
        if self._holders(change.old) - {stable}:
            return "left"
        for other in self._holders(change.new) - {stable}:
            theirs = self.change_of(other)
            is_leaving = theirs is not None and theirs.old == change.new
            if not (theirs and is_leaving) or self._returns(theirs, change.old):
                return "refused"
            return "wait"
        return "go"

    def _returns(self, change: StableIdChange, old: str) -> bool:
        """Say whether a chain of changes leads back to the identity `old`, or runs in circles."""
        passed: set[str] = set()
        while change.new != old:
            if change.new in passed:
                return True
            passed.add(change.new)
            found = (self.change_of(other) for other in self._holders(change.new))
            following = next((each for each in found if each and each.old == change.new), None)
            if following is None:
                return False
            change = following
        return True

    def _holders(self, key: str) -> set[bytes]:
        """Return the stable ids that are known under an identity now."""
        digest = digest_of(key)
        return {each for each in self.claims(key) if self._holds(each, key, digest)}

    def _holds(self, stable: bytes, key: str, digest: bytes) -> bool:
        text: Any = self.client.get(self._home(stable).stable(stable))
        if not text:
            return False
        record = StableRecord.loads(text)
        return record.key == key or record.refused == digest.hex()

    def claims(self, key: str) -> list[bytes]:
        """Return the stable ids that ever came with an identity."""
        return self._listed(self._partition(key).claims(digest_of(key)))

    def _listed(self, claims: bytes) -> list[bytes]:
        text: Any = self.client.get(claims)
        return [bytes.fromhex(each) for each in (text or b"").decode().split()]

    def end(self, stable: bytes, change: StableIdChange, ending: Ending, kept_ms: int) -> bool:
        """End a change, and return False if it was ended or replaced meanwhile.

        Raises:
            RedisUnavailable: It may have ended.
        """
        home = self._home(stable)
        names = (home.changes, home.changed, home.stable(stable), home.lease)
        args = (
            stable.hex(),
            change.text,
            ending,
            digest_of(change.old).hex(),
            digest_of(change.new).hex(),
            kept_ms,
        )
        (ended,) = self._run("stable_done", [ScriptCall(names, args)])
        if ended and ending != "refused":
            partition = self._partition(change.old)
            listed = (partition.claims(digest_of(change.old)), partition.lease)
            self._run("unclaim", [ScriptCall(listed, (stable.hex(),))])
        return bool(ended)

    def forget(self, digest: bytes, partition: int, profile_keys: Sequence[str]) -> int:
        """Forget an identity, and return the number of stable ids that are not known any more.

        Raises:
            OperationsMustAct: The person is to be renamed, or to get this identity.
        """
        self.refuse_changing(digest, partition)
        claims = self._at(partition).claims(digest)
        stables = self._listed(claims)
        names = [PROTECTION.seal_name(key) for key in profile_keys]
        calls = [
            ScriptCall((home.stable(stable), home.lease), (digest.hex(), *names))
            for stable in stables
            for home in (self._home(stable),)
        ]
        answers = self._run("stable_forget", calls)
        self.client.unlink(claims)
        return len([answer for answer in answers if answer == 1])

    def refuse_changing(self, digest: bytes, partition: int) -> None:
        """Raise an error if somebody is about to leave an identity, or to get it."""
        claims = self._at(partition).claims(digest)
        for stable in self._listed(claims):
            change = self.change_of(stable)
            if change and digest in (digest_of(change.old), digest_of(change.new)):
                raise OperationsMustAct(
                    "This person is being renamed, because their stable id came with another"
                    " identity. A worker has to run; run this again in a few seconds."
                )

    def _run(self, name: str, calls: Sequence[ScriptCall]) -> list[Any]:
        return opened.run(self.client, name, calls)

    def _home(self, stable: bytes) -> PartitionKeys:
        return self._at(stable_partition(stable, self.redis.partitions))

    def _partition(self, key: str) -> PartitionKeys:
        return self._at(partition_of(key, self.redis.partitions))

    def _at(self, number: int) -> PartitionKeys:
        return self.redis.ids.partition(self.destination, number)


class PastRenaming(NamedTuple):
    """A renaming of a person that is done.

    Attributes:
        at_ms: Its begin.
        trigger: Of the event that showed it; "" = a person gave the command.
    """

    destination: str
    at_ms: int
    trigger: str


def renamings_in(done: Iterable[ForwardedPerson], digest: bytes) -> Iterator[PastRenaming]:
    """Yield the renamings by which somebody got the identity that they have.

    Args:
        done: The people whose renaming has ended.
        digest: Of the present identity.
    """
    by_destination: defaultdict[str, list[ForwardedPerson]] = defaultdict(list)
    for one in done:
        by_destination[one.destination].append(one)
    for destination, found in by_destination.items():
        former = {person.digest for person in former_identities(found, digest)}
        for each in found:
            if each.person.digest in former:
                yield PastRenaming(destination, each.forward.begun_ms, each.forward.trigger)


def destinations_with_stable_ids(settings: Settings) -> list[str]:
    """Return the destinations that know people by stable ids."""
    return [name for name, each in settings.destinations.items() if each.stable]


def read_renamed_people(
    client: Redis, partitions: Sequence[PartitionKeys], names: Iterable[str]
) -> Mapping[str, RenamedPeople]:
    """Return the counts of people who were renamed automatically, by destination."""
    wanted = set(names)
    own = [partition for partition in partitions if partition.destination in wanted]
    ids = {partition.destination: partition.id for partition in own}
    pipe = client.pipeline(transaction=False)
    for partition in own:
        pipe.hmget(partition.changed, "renamed", "refused", "refused_ms")
        pipe.hlen(partition.changes)
    for name in sorted(wanted):
        pipe.hget(keys.changes(ids.get(name, name)), "state")
    told: list[Any] = pipe.execute()
    told, states = told[: 2 * len(own)], told[2 * len(own) :]
    found = {
        name: RenamedPeople(problem=orjson.loads(state or b"{}").get("problem", ""))
        for name, state in zip(sorted(wanted), states, strict=True)
    }
    for partition, counts, waiting in zip(own, told[::2], told[1::2], strict=True):
        renamed, refused, refused_ms = (int(each or 0) for each in counts)
        before = found[partition.destination]
        found[partition.destination] = RenamedPeople(
            before.renamed + renamed,
            before.refused + refused,
            max(before.refused_ms, refused_ms),
            before.waiting + waiting,
            before.problem,
        )
    return found

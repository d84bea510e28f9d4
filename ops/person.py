"""`segrelay erase`: forget a person, in streams, ledger, dead letters, quarantine and syncs.

Traces that stay are named: texts that mention the person, bytes of deleted entries, and files that
were exported. What was found is counted, and nothing of it is kept. A command that was killed is
given again.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from segrelay.ops.dead_letters.commands import DeadLetters
from segrelay.ops.insider import InsiderReader
from segrelay.ops.outcomes import Range, entries
from segrelay.ops.state import opened
from segrelay.ops.state.opened import EXPORTED_FILE, Asks, Doing, perform
from segrelay.ops.state.partitions import Stream, all_partitions
from segrelay.ops.state.person import key_named
from segrelay.ops.state.waiting import Filter, find_streams, read_entries, take_back_entries
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.moments import awaited
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.outcomes import log_bytes, without_people
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.processes import forget_requests
from segrelay.worker.contract.protection import PROTECTION, RESPONSES
from segrelay.worker.contract.redis.accept import field_of_member
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import (
    LeaseLost,
    NotPermitted,
    OperationsMustAct,
    PayloadRefused,
    RedisUnavailable,
    UsageWrong,
)

_LONGEST: Final = 5_000
"""The longest stream, in entries, that is rewritten in one step; Redis takes 0.1 s for it."""
_LONGEST_OUTCOMES: Final = 50_000
"""The longest outcome log, in entries, that is rewritten in one step; its entries are small."""


def compact_streams(client: Redis, partitions: Sequence[PartitionKeys]) -> int:
    """Rewrite streams that may hold bytes of deleted entries; return how many are too long.

    Raises:
        RedisUnavailable: Redis can't be asked; do it again.
    """
    waiting = [one.partition.stream(one.name) for one in find_streams(client, partitions)]
    too_long = 0
    for name in (*waiting, *(one.responses for one in partitions), keys.REQUESTS):
        (answer,) = opened.run(client, "stream_rewrite", [ScriptCall((name,), (_LONGEST,))])
        too_long += answer < 0
    return too_long


_OWNER: Final = "segrelay erase"
_LEASE_MS: Final = 30_000
"""Duration of a command's lease in ms: longer than any step, and workers go on after a crash."""
_PATIENCE_SECONDS: Final = 40.0
"""Seconds to wait for a worker to end its slice and give its lease back, or for the lease of a
command that lost Redis to lapse."""
_LOOK_AT_LEASE_SECONDS: Final = 0.02
_ANSWER_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.2


@contextmanager
def held(client: Redis, partition: PartitionKeys) -> Iterator[str]:
    """Hold the lease of a partition, so that no worker drains it; yield its token.

    Every script that writes compares the token. Where Redis is away at the end, the lease lapses.
    """
    token = secrets.token_hex(8)
    call = ScriptCall((partition.lease,), (token, _LEASE_MS, _OWNER))
    gives_up_at = time.monotonic() + _PATIENCE_SECONDS
    while not (answer := opened.run(client, "hold", [call], replicated=True)[0])[0]:
        if time.monotonic() > gives_up_at:
            who, _, _ = answer[1].decode().partition(" ")
            raise OperationsMustAct(
                f"{who or 'Somebody'} goes on working on partition {partition.number} of"
                f" {partition.destination}. Stop it, or restart it with this"
                " configuration; then run this again: what is done stays done."
            )
        time.sleep(_LOOK_AT_LEASE_SECONDS)
    try:
        yield token
    finally:
        with suppress(RedisUnavailable):
            opened.run(client, "hold", [ScriptCall((partition.lease,), (token, 0, _OWNER))])


@dataclass(slots=True)
class Erasing:
    """The erasing of one person from Redis.

    Args:
        key: The key of the person's profile.
        too_long: The number of streams that may still hold bytes of deleted entries, see
            `compact_streams`.
        damaged: The number of records that can't be read, so that it is not known whether they are
            about the person, by where they stand.
    """

    client: Redis
    settings: Settings
    key: str
    counts: Counter[str] = field(default_factory=Counter)
    too_long: int = field(default=0, init=False)
    damaged: Counter[str] = field(default_factory=Counter, init=False)

    @property
    def digest(self) -> bytes:
        """Return the digest under which the person is known."""
        return digest_of(self.key)

    def is_mentioned(self, text: bytes) -> bool:
        """Say whether a text has the value of the identity, or the digest in hexadecimal."""
        try:  # the escapes of JSON are resolved
            plain = orjson.dumps(orjson.loads(text)).decode().lower()
        except orjson.JSONDecodeError:
            plain = text.decode(errors="replace").lower()
        return self.key.partition(":")[2].lower() in plain or self.digest.hex() in plain

    def run(self) -> None:
        """Erase the person.

        Raises:
            OperationsMustAct: A request about the person is unanswered; do it again.
            RedisUnavailable: Do it again.
        """
        partitions = all_partitions(self.client, self.settings)
        for partition in partitions:
            if partition.number == partition_of(self.key, self.settings.redis.partitions):
                self._await_answers(partition)
                with held(self.client, partition) as token:
                    self._erase_in(partition, token)
        wanted = Filter(digests=frozenset({self.digest.hex()}))
        letters = DeadLetters(self.client, self.settings).discard(wanted)
        self.counts["letters"] += sum(letters.steps())
        self._erase_elsewhere()
        longest = self._erase_outcomes()
        self.too_long = compact_streams(self.client, partitions) + longest

    def files(self) -> list[str]:
        """Return the files that were exported on this machine, and mention the person."""
        names = {act.arguments.get(EXPORTED_FILE, "") for act in read_acts(self.client)} - {""}
        found = []
        for name in sorted(names):
            with suppress(OSError), Path(name).open("rb") as file:
                found += [name] if any(map(self.is_mentioned, file)) else []
        return found

    def _await_answers(self, partition: PartitionKeys) -> None:
        """Wait until no request about the person is open: its answer would write the ledger."""
        begun_ms = now_ms(self.client)

        def is_answered() -> bool:
            intents: Any = self.client.hgetall(partition.intents)
            ends: Any = self.client.hgetall(partition.open)
            own = {name for name, text in intents.items() if self.digest.hex().encode() in text}
            # Those of a worker that is gone, which nobody took over, have no end yet.
            lapses_ms = float(self.client.hget(partition.lease, "until") or begun_ms)
            usual_ms = lapses_ms + 1_000 * self.settings.delivery.late_seconds
            if any(float(ends.get(name, usual_ms)) > now_ms(self.client) for name in own):
                return False
            # Where nothing waits, nobody takes the lease and removes what has ended.
            for key in (partition.intents, partition.open) if own else ():
                self.client.hdel(key, *own)
            return True

        if not awaited(is_answered, _ANSWER_SECONDS, _LOOK_SECONDS):
            raise OperationsMustAct(
                "A request about this person has got no sure answer yet. A worker has to run;"
                " run this again in a minute."
            )

    def _erase_in(self, partition: PartitionKeys, token: str) -> None:
        for stream in find_streams(self.client, [partition]):
            self.counts["waiting"] += self._take_back(stream)
        members = map(partition.members, self.settings.sync)
        known = [partition.reached, partition.who, *members]
        names: list[str | bytes] = [partition.lease, partition.ledger(self.digest), *known]
        call = ScriptCall(names, (token, self.digest.hex(), field_of_member(self.key)))
        (answer,) = opened.run(self.client, "forget", [call])
        if answer[0] < 0:
            raise LeaseLost(f"The lease of {partition.tag} was taken over; run this again.")
        for what, count in zip(("ledgers", "verify", "sync members"), answer, strict=True):
            self.counts[what] += count
        rows: Any = self.client.xrange(partition.responses)
        ids = [
            entry_id
            for entry_id, fields in rows
            if any(self.is_mentioned(self._opened(one, RESPONSES)) for one in fields.values())
        ]
        self.counts["responses"] += self.client.xdel(partition.responses, *ids) if ids else 0

    def _take_back(self, stream: Stream) -> int:
        own = [
            entry
            for entry in read_entries(self.client, stream)
            if entry.header and entry.header.digest == self.digest
        ]
        if not own:
            return 0
        return take_back_entries(self.client, stream, own, log_bytes(self.settings))

    def _erase_elsewhere(self) -> None:
        """Erase from the quarantine, and the requests to the receiver.

        A request is forgotten as a whole, whoever else it was about.
        """
        quarantine = Quarantine(self.client)
        ids = [
            record.id
            for record in quarantine.records()
            if self.is_mentioned(self._quarantined(quarantine, record.id))
        ]
        self.counts["quarantine"] += quarantine.remove(ids)
        self.counts["requests"] += forget_requests(self.client, [self.digest])

    def _opened(self, sealed: bytes, place: bytes) -> bytes:
        try:
            return PROTECTION.unseal(sealed, place)
        except PayloadRefused:
            self.damaged[place.decode()] += 1
            return b""

    def _quarantined(self, quarantine: Quarantine, record_id: str) -> bytes:
        text = quarantine.text(record_id)
        self.damaged["quarantine"] += text is None
        return text or b""

    def _erase_outcomes(self) -> int:
        """Take the person out of rows about outcomes; return how many streams keep them."""
        people = frozenset({self.digest.hex()})
        too_long = 0
        for partition in all_partitions(self.client, self.settings):
            anew: list[bytes] = []
            rows = 0
            for entry_id, fields in entries(self.client, Range(partition, "-", "+")):
                text, theirs = without_people(fields[b"r"], people)
                if theirs:
                    anew += (entry_id, text)
                    rows += theirs
            if anew:
                names = (partition.outcomes, partition.recorded)
                call = ScriptCall(names, (_LONGEST_OUTCOMES, *anew))
                (answer,) = opened.run(self.client, "stream_rewrite", [call])
                too_long += answer < 0
                self.counts["outcomes"] += rows if answer > 0 else 0
        return too_long


def rewrite_files(client: Redis) -> bool:
    """Make Redis rewrite its append-only file, so that no older part of it holds erased data.

    Returns:
        Whether that is done; a user with few rights may not ask for it.
    """
    try:
        asked = [one for _, one in client.masters() if one.info("persistence").get("aof_enabled")]
        for one in asked:
            one.bgrewriteaof()
        under_way = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
        while any(one.info("persistence")[name] for one in asked for name in under_way):
            time.sleep(_LOOK_SECONDS)
    except NotPermitted:
        return False
    return True


Identifier = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="What the identity is at Insider: email, phone_number, uuid or custom.NAME; by default"
        " its own name.",
    ),
]


def erase(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The identity of the person.")],
    *,
    anonymize: Annotated[
        bool, typer.Option("--anonymize", help="Make the person anonymous at Insider, too.")
    ] = False,
    identifier: Identifier = "",
    relay: Asks,
) -> Result:
    """Erase a person from Redis: waiting deliveries, ledger, dead letters, quarantine and syncs.

    The receipt has counts and a digest, and no data. At Insider the profile stays, unless
    --anonymize lets Insider remove what is personal in it; a whole profile is never deleted. What
    is accepted afterwards is delivered as that of a new person: erase the person at the source
    first. An address of earlier is a person of its own: erase it as well.
    """
    client, settings = relay.client, relay.settings
    key = key_named(name, settings)
    who = _identifier(settings, identifier, key) if anonymize else None
    relay.confirm("Erase this person from Redis for good?")
    erasing = Erasing(client, settings, key)
    said: dict[str, str] = {}

    with ExitStack() as stack:  # credentials that are missing are told before anything is erased
        insiders = {
            each: stack.enter_context(InsiderReader(settings, destination))
            for each, destination in settings.destinations.items()
            if who and destination.api == "insider"
        }

        def erased(doing: Doing) -> tuple[bool, list[str]]:
            erasing.run()
            doing.count = erasing.counts.total()
            # Nothing waits any more that would tell Insider of the person anew.
            for each, insider in insiders.items():
                said[each] = insider.anonymize(who or {}) or "anonymized"
            return rewrite_files(client), erasing.files()

        is_rewritten, files = perform(client, relay.act(), erased)
    counts = dict(sorted(erasing.counts.items()))
    return Result(
        {
            "erased": counts,
            "digest": erasing.digest.hex(),
            "insider": said,
            "files_rewritten": is_rewritten,
            "streams_too_long": erasing.too_long,
            "damaged": dict(+erasing.damaged),
            "exported_files": files,
        },
        f"erased the digest {erasing.digest.hex()}",
        *(f"  {what}: {count:,}" for what, count in counts.items() if count),
        *(f"  {destination}: {answer}" for destination, answer in said.items()),
        notes=_what_remains(files, erasing.too_long, +erasing.damaged, is_rewritten=is_rewritten),
        exit_code=1 if any(answer != "anonymized" for answer in said.values()) else 0,
    )


def _what_remains(
    files: Sequence[str], too_long: int, damaged: Mapping[str, int], *, is_rewritten: bool
) -> Iterator[str]:
    """Yield where the person may still be."""
    if not is_rewritten:
        yield "Redis' own file still has it: this user may not run BGREWRITEAOF, so have it run."
    if too_long:
        yield (
            f"In {plural(too_long, 'stream')} too much waits to write them anew: Redis'"
            " memory and files keep bytes of deleted entries. Run this again once less waits."
        )
    for where, count in sorted(damaged.items()):
        yield (
            f"{where}: {plural(count, 'record')} can't be read, being damaged, so nobody knows"
            " whom they are about: they stay."
        )
    for file in files:
        yield f"{file} was exported and still has the person: delete it."


def _identifier(settings: Settings, named: str, profile_key: str) -> Mapping[str, Any]:
    """Return Insider's identifier of a person: by its kind, if one was named."""
    kind = named or settings.delivery.identity
    outer, _, name = kind.partition(".")
    if kind not in ("email", "phone_number", "uuid") and not (outer == "custom" and name):
        raise UsageWrong(
            f"'{kind}' is no identifier of Insider: name the one that your templates send with"
            " --identifier email, phone_number, uuid or custom.NAME."
        )
    value = profile_key.partition(":")[2]
    return {"custom": {name: value}} if name else {kind: value}

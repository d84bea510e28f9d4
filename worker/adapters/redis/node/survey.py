"""`RedisSurvey`: looks at all partitions at once, for the sweep."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from worker.adapters.redis import scripts
from worker.adapters.redis.gate import LOOK, ask_look, looks
from worker.adapters.redis.meanings import meanings
from worker.contract import keys
from worker.contract.keys import PartitionKeys, split_stream_name
from worker.contract.numbering import Numbering
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import digest
from worker.contract.settings import Destination, Settings
from worker.contract.triggers.meaning import named_audiences
from worker.contract.triggers.pauses import parse_pauses
from worker.contract.words import BACKFILL, LIVE
from worker.core.backoff import longest_ms
from worker.core.gate import MICROSECONDS, Open
from worker.core.rounds import Ring, Sight

_BACKFILL_IS_DUE: Final = 3
LOCK_MS: Final = 900
"""The time in ms for which a sweeper holds the lock: less than a round, so others can follow."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A partition with at least one stream that may be worked on now.

    Args:
        idle: Its triggers of which nothing may be done now, and the lanes that are paused.
        meanings: What the others mean, as `trigger|MEANING`.
    """

    keys: PartitionKeys
    idle: frozenset[str]
    meanings: frozenset[str]


class RedisSurvey:
    """Looks at the partitions of the destinations that the configuration names.

    Args:
        client: With short timeouts: whoever asks must not wait for long.
        settings: Streams of triggers that it does not name are left alone.
        stopped: Returns the names of triggers that this node can't work on.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        *,
        stopped: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._client = client
        self._settings = settings
        self._stopped = stopped
        self._lock = f"{keys.SWEEP}:{settings.fingerprint}"
        self._script = scripts.source("due")
        self._audiences = named_audiences(settings.triggers.values())

    def may_sweep(self) -> bool:
        """Say whether this node does the round: one node of each configuration does."""
        with redis_errors():
            return bool(scripts.call_sync(self._client, "once", [self._lock], [LOCK_MS]))

    def look(self) -> list[Sight]:
        """Return the partitions with a stream that may be worked on, and ring for the due ones."""
        with redis_errors():
            return self._second_look(*self._first_look())

    def _first_look(self) -> tuple[int, list[_Place]]:
        """Read clock, pauses, gates and the names of streams, in one round trip."""
        destinations = list(self._settings.destinations.values())
        all_keys = [
            PartitionKeys(destination.name, partition)
            for destination in destinations
            for partition in self._settings.redis.numbering.numbers
        ]
        answers = self._asked(destinations, all_keys)
        partitions, (seconds, rest), stored, slugs, renamed, *looked = answers
        self._settings.redis.learn(Numbering.loads(partitions) if partitions else None)
        now_us = seconds * MICROSECONDS + rest
        pauses = parse_pauses(stored)
        labels = self._labels(slugs, renamed)
        gates, streams = looked[: len(destinations)], looked[len(destinations) :]
        paused = {*pauses.triggers, *self._stopped()}
        ready = {
            destination.name: self._open_triggers(destination, gate) - paused
            for destination, gate in zip(destinations, gates, strict=True)
            if destination.name not in pauses.destinations
        }
        looks = (
            _place(place, names, ready[place.destination], pauses.lanes, labels)
            for place, names in zip(all_keys, streams, strict=True)
            if place.destination in ready
        )
        return now_us, [place for place in looks if place]

    def _asked(
        self, destinations: Sequence[Destination], places: Sequence[PartitionKeys]
    ) -> list[Any]:
        """Read the shared keys, each destination's gate, and each partition's stream names."""
        pipe = self._client.pipeline(transaction=False)
        pipe.script_load(scripts.source(LOOK))
        pipe.get(keys.PARTITIONS)
        pipe.time()
        pipe.hgetall(keys.PAUSED)
        pipe.hmget(keys.AUDIENCES, self._audiences or [""])
        pipe.hgetall(keys.RENAMED)
        for destination in destinations:
            authorization = self._settings.authorization_of(destination)
            ask_look(pipe, destination, authorization, self._triggers_of(destination))
        for place in places:
            pipe.smembers(place.streams)
        return pipe.execute()[1:]

    def _labels(
        self, slugs: Sequence[bytes | None], renamed: Mapping[bytes, bytes]
    ) -> dict[str, str]:
        """Return the labels `trigger|MEANING` of all triggers' meanings, by trigger."""
        triggers = list(self._settings.triggers.values())
        found = meanings(triggers, self._audiences, slugs if self._audiences else (), renamed)
        return {name: meaning.label for name, meaning in found.items()}

    def _triggers_of(self, destination: Destination) -> list[str]:
        return [each.name for each in self._settings.triggers_of(destination.name)]

    def _open_triggers(self, destination: Destination, answers: Sequence[Any]) -> set[str]:
        """Return the triggers for which a drain would find the gate open."""
        found = looks(self._triggers_of(destination), answers)
        return {trigger for trigger, look in found.items() if isinstance(look, Open)}

    def _second_look(self, now_us: int, places: Sequence[_Place]) -> list[Sight]:
        """Ask which partitions are due, in one round trip, and ring their bells."""
        if not places:
            return []
        pipe = self._client.pipeline(transaction=False)
        pipe.script_load(self._script)
        for place in places:
            pipe.exists(place.keys.bell)
            pipe.hget(place.keys.lease, "until")
            self._ask(pipe, place)
        answers: Any = pipe.execute()[1:]
        looks = zip(places, answers[0::3], answers[1::3], answers[2::3], strict=True)
        return [
            Sight(
                Ring(
                    BACKFILL if due == _BACKFILL_IS_DUE else LIVE,
                    place.keys.destination,
                    place.keys.partition,
                ),
                due=bool(due),
                ringing=bool(ringing),
                held=bool(until) and int(until) * 1000 > now_us,
            )
            for place, ringing, until, due in looks
        ]

    def _ask(self, pipe: redis.client.Pipeline, place: _Place) -> None:
        at = place.keys
        pipe.evalsha(
            digest(self._script),
            6,
            at.lease,
            at.holds,
            at.streams,
            at.retry,
            at.bell,
            at.orphans,
            at.tag,
            longest_ms(self._settings.delivery.late_seconds),
            *sorted(place.idle | place.meanings),
        )


def _place(
    place: PartitionKeys,
    names: Iterable[bytes],
    ready: Collection[str],
    paused_lanes: Collection[str],
    labels: Mapping[str, str],
) -> _Place | None:
    """Return a partition with its idle triggers and lanes; None if all its streams are idle.

    Ready are triggers that are not paused, and whose gate is open.
    """
    streams = [split_stream_name(name.decode()) for name in names]
    idle = {trigger for _, trigger in streams if trigger not in ready}
    paused = {lane for lane, _ in streams if lane in paused_lanes}
    if all(trigger in idle or lane in paused for lane, trigger in streams):
        return None
    meant = {labels[trigger] for _, trigger in streams if trigger in labels}
    return _Place(place, frozenset(idle | paused), frozenset(meant))

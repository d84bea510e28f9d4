"""`RedisSurvey`: looks at all partitions at once, for the sweep."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from worker.adapters import scripts
from worker.adapters.gate import fingerprint_of
from worker.contract import keys
from worker.contract.connection import redis_errors
from worker.contract.keys import PartitionKeys, split_stream_name
from worker.contract.pauses import parse_pauses
from worker.contract.settings import Destination, Settings
from worker.contract.words import BACKFILL, LIVE
from worker.core.gate import MICROSECONDS, POLICY, Open, gate_id
from worker.core.gate_rules import GateRecord, look
from worker.core.rounds import Call, Sight

LOCK_MS: Final = 900
"""Shorter than the second between two rounds, so that a sweeper that dies is followed at once."""


@dataclass(frozen=True, slots=True)
class _Place:
    keys: PartitionKeys
    streams: frozenset[str]


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

    def may_sweep(self) -> bool:
        """Say whether this round is ours; each configuration sweeps for what it knows."""
        with redis_errors():
            return bool(scripts.call_sync(self._client, "once", [self._lock], [LOCK_MS]))

    def look(self) -> list[Sight]:
        """Return the partitions that hold anything and whose destination may be sent to.

        Raises:
            RedisUnavailable: Redis can't be asked.
        """
        with redis_errors():
            now_us, paused, places = self._first_look()
            return self._second_look(now_us, paused, places)

    def _first_look(self) -> tuple[int, frozenset[str], list[_Place]]:
        """Read clock, pauses, gates and the names of streams, in one round trip."""
        destinations = list(self._settings.destinations.values())
        all_keys = [
            PartitionKeys(destination.name, partition)
            for destination in destinations
            for partition in range(self._settings.redis.partitions)
        ]
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(keys.PAUSED)
        for destination in destinations:
            pipe.hgetall(keys.gate(gate_id(destination.base_url, destination.authorization)))
        for place in all_keys:
            pipe.smembers(place.streams)
        (seconds, rest), stored, *answers = pipe.execute()
        now_us = seconds * MICROSECONDS + rest
        pauses = parse_pauses(stored)
        gates, streams = answers[: len(destinations)], answers[len(destinations) :]
        open_ones = {
            destination.name
            for destination, gate in zip(destinations, gates, strict=True)
            if destination.name not in pauses.destinations
            and self._is_open(destination, gate, now_us)
        }
        places = [
            _Place(place, frozenset(name.decode() for name in names))
            for place, names in zip(all_keys, streams, strict=True)
            if names and place.destination in open_ones
        ]
        return now_us, frozenset({*pauses.triggers, *self._stopped()}), places

    def _is_open(self, destination: Destination, stored: dict[bytes, bytes], now_us: int) -> bool:
        """Say whether a drain would find the gate open; with its own rules and credentials."""
        record = GateRecord.loads({name.decode(): text.decode() for name, text in stored.items()})
        gate = look(
            record,
            rate=destination.rate_per_minute,
            fingerprint=fingerprint_of(self._settings.authorization_of(destination)),
            triggers=(),
            now=now_us,
            policy=POLICY,
        )
        return isinstance(gate, Open)

    def _second_look(
        self, now_us: int, paused: frozenset[str], places: Sequence[_Place]
    ) -> list[Sight]:
        """Ask which of them are due, in one round trip; rings their bells."""
        if not places:
            return []
        pipe = self._client.pipeline(transaction=False)
        pipe.script_load(self._script)
        for place in places:
            pipe.exists(place.keys.bell)
            pipe.hget(place.keys.lease, "until")
            self._ask(pipe, place, paused)
        answers: Any = pipe.execute()[1:]
        looks = zip(places, answers[0::3], answers[1::3], answers[2::3], strict=True)
        return [
            Sight(
                Call(LIVE if live else BACKFILL, place.keys.destination, place.keys.partition),
                due=bool(due),
                ringing=bool(ringing),
                held=bool(until) and int(until) * 1000 > now_us,
            )
            for place, ringing, until, (due, live) in looks
        ]

    def _ask(self, pipe: redis.client.Pipeline, place: _Place, paused: frozenset[str]) -> None:
        triggers = {split_stream_name(name)[1] for name in place.streams}
        unknown = triggers - set(self._settings.triggers)
        at = place.keys
        pipe.evalsha(
            scripts.digest(self._script),
            5,
            at.lease,
            at.holds,
            at.streams,
            at.retry,
            at.bell,
            at.tag,
            *sorted(unknown | (triggers & paused)),
        )

"""Warms a worker's process up: one sample event is drained before the first real one comes.

What runs for the first time takes several times as long: Python specialises code as it runs, caches
fill, and a forked process copies each page of memory that it writes to, counts of references
included. So the worker drains a sample of its triggers before it forks, and each process does the
same when it begins: by the drain of the product, with the templates, the requests and the HTTP
client of the triggers.

Nothing of it reaches Redis or a destination. The partition is in memory and holds one event, the
gate gives one send time, and the connection leads nowhere. Rendering it counts nowhere and decides
nothing about a template: the first real event is compared with the engine as ever.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Self

import httpcore
import orjson

from segrelay.jsonnet.rendered import (
    Asserted,
    Engine,
    Killed,
    Rendered,
    Row,
    Template,
    TemplateFailed,
)
from segrelay.jsonnet.renderer import Renderer
from segrelay.worker.adapters.redis.lease import SystemClock
from segrelay.worker.adapters.sender import HttpSender
from segrelay.worker.batch.delivery import Delivery, Failure, LoadedTrigger
from segrelay.worker.batch.partition import (
    Hold,
    Intent,
    LedgerText,
    ReadEntries,
    ReadRange,
    Release,
    Replacement,
    Settlement,
    TakenPartition,
)
from segrelay.worker.batch.send import Stop
from segrelay.worker.checks.preview import sample_header
from segrelay.worker.checks.samples import entry_of, profile_for
from segrelay.worker.contract.events import Header
from segrelay.worker.contract.keys import PartitionKeys, digest_of, stream_name
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import NO_RENAMES, Renames
from segrelay.worker.contract.words import LIVE, Direction
from segrelay.worker.core.gate import Closed, GateState, LaneKind, Open, SendTime, TriggerAnswers
from segrelay.worker.core.verdicts import Verdict
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.sending import (
    NoAnswer,
    OutgoingRequest,
    Permit,
    Silence,
    granted,
)
from segrelay.worker.drain import Drain, Limits
from segrelay.worker.logs import log_bug

MOST_SECONDS: Final = 0.1
"""The seconds after which a warm-up begins no further sample."""
MOST_SAMPLES: Final = 5
"""The most templates whose samples are drained."""
_ENTRY_ID: Final = "0-1"
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_LIMITS: Final = Limits(
    slice_seconds=20.0, request_deadline_seconds=20.0, late_seconds=30.0, in_flight=1
)
"""Long ones, also for a process that stands still for a while: there is nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An event that nobody sent, for a trigger.

    Args:
        keys: Of a partition, for the request's own headers.
    """

    keys: PartitionKeys
    trigger: LoadedTrigger
    header: Header
    profile: bytes

    @property
    def stream(self) -> str:
        """Return the name of the stream that a drain finds it in."""
        return stream_name(LIVE, self.trigger.name)

    def delivery(self) -> Delivery:
        """Return it as a drain reads it."""
        return Delivery(self.stream, self.trigger.name, _ENTRY_ID, self.header, self.profile)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The drains of samples; the samples are chosen once for a node.

    Args:
        samples: One for each of some templates, all of which render.
    """

    renderer: Renderer
    samples: Sequence[Sample]

    @classmethod
    def of(
        cls,
        settings: Settings,
        renderer: Renderer,
        triggers: Mapping[str, Mapping[str, LoadedTrigger]],
    ) -> Self:
        """Return the warm-up for triggers, by destination and name."""
        of_templates: dict[Template, LoadedTrigger] = {}
        for one in (one for each in triggers.values() for one in each.values()):
            if one.template and not one.stopped:
                of_templates.setdefault(one.template, one)
        found = (_sample_of(settings, renderer, one) for one in of_templates.values())
        return cls(renderer, tuple(islice(filter(None, found), MOST_SAMPLES)))

    def run(self, *, most_seconds: float = MOST_SECONDS) -> int:
        """Drain the samples, and return the number of requests that it took.

        No event needs it, so that an error of it is logged and forgotten.

        Args:
            most_seconds: The seconds after which it begins no further sample.
        """
        until = time.monotonic() + most_seconds
        senders: list[_LeadingNowhere] = []
        try:
            with asyncio.Runner() as runner:
                for sample in self.samples:
                    if time.monotonic() < until:
                        senders.append(_LeadingNowhere())
                        runner.run(self._drain(sample, senders[-1]))
        except Exception as error:  # noqa: BLE001 - see above
            log_bug(error, "warming.failed")
        return sum(sender.sent for sender in senders)

    async def _drain(self, sample: Sample, sender: _LeadingNowhere) -> None:
        drain = Drain(
            keys=sample.keys,
            partition=_SamplePartition(sample),
            gate=_SampleGate(),
            sender=sender,
            renderer=_SampleRenderer(self.renderer),
            numbers=_SameNumber(),
            streaks=_NoStreaks(),
            lease=_OwnLease(),
            triggers={sample.trigger.name: sample.trigger},
            paused=frozenset(),
            looks={sample.trigger.name: Open()},
            read_names=_no_renames,
            read_editions=_no_editions,
            live_waits=_no_live_work,
            clock=SystemClock(),
            jitter=random.Random(0),  # noqa: S311 - nothing is decided by it
            limits=_LIMITS,
            stop=Stop(),
        )
        try:
            await drain.run()
        finally:
            await sender.close()


def _sample_of(settings: Settings, renderer: Renderer, loaded: LoadedTrigger) -> Sample | None:
    """Return the sample that a trigger is tried on as an event of now; None if it fails."""
    trigger, now = settings.triggers[loaded.name], datetime.now(UTC)
    try:
        profile = profile_for(settings, trigger, now)
        slug = str(entry_of(profile).get("slug") or "sample")
        header = sample_header(slug, Direction(trigger.on), int(1_000_000 * now.timestamp()))
        header = header._replace(digest=digest_of("sample"))
        keys = settings.redis.ids.partition(trigger.destination, 0)
        sample = Sample(keys, loaded, header, orjson.dumps(profile))
        assert loaded.template is not None
        row = Row(sample.profile, loaded.settings, header.time_us)
        return sample if all(renderer.try_out(loaded.template, [row])) else None
    except Exception as error:  # noqa: BLE001 - a worker begins without a warm-up, too
        log_bug(error, "warming.failed", trigger=loaded.name)
        return None


async def _no_renames() -> Renames:
    return NO_RENAMES


async def _no_editions() -> Mapping[str, str]:
    return {}


async def _no_live_work() -> bool:
    return False


@dataclass(slots=True)
class _SamplePartition:
    """A partition in memory that holds one event, until its request was tried."""

    sample: Sample
    is_over: bool = False

    async def take(self) -> TakenPartition | None:
        return TakenPartition(
            now_ms=_now_ms(),
            streams=await self.streams(),
            intents=(),
            rendering=frozenset(),
            waits={},
            backoffs={},
            holds={},
        )

    async def streams(self) -> tuple[str, ...]:
        return () if self.is_over else (self.sample.stream,)

    async def read(self, ranges: Sequence[ReadRange]) -> list[ReadEntries]:
        entries = [] if self.is_over else [self.sample.delivery()]
        return [ReadEntries([] if each.after_id else entries, is_all=True) for each in ranges]

    async def ledgers(
        self, digests: Sequence[bytes], rendering: Iterable[str] = (), *, hears: bool = False
    ) -> list[bytes | None]:
        del hears
        _ = list(rendering)
        return [None] * len(digests)

    async def peek(self, digests: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(digests)

    async def intent(self, intent: Intent) -> int:
        intent.dumps()
        return _now_ms()

    async def intents_in_doubt(
        self, intent_ids: Sequence[str], seconds: float, records: Mapping[bytes, LedgerText]
    ) -> int:
        del intent_ids, seconds, records
        return 0

    async def settle(self, settlement: Settlement) -> int:
        del settlement
        self.is_over = True
        return 0

    async def carry_over(self, replacements: Sequence[Replacement]) -> None:
        del replacements

    async def forwards(self, digests: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(digests)

    async def accept_in(self, partition: int, deliveries: Sequence[NewDelivery]) -> None:
        del partition, deliveries

    async def set_aside(self, stream: str, scope: str, last_id: str) -> None:
        del stream, scope, last_id

    async def hold_back(self, intent: Intent, seconds: float) -> None:
        del intent, seconds

    async def release(
        self,
        holds: Mapping[str, Hold | None],
        paused: Iterable[str],
        *,
        suspects: Iterable[str] = (),
        labels: Iterable[str] = (),
        keep_for: Iterable[LaneKind] = (),
    ) -> Release:
        del holds, paused, suspects, labels, keep_for
        return Release(released=True, due=False, wake="")

    async def accept(self, deliveries: Sequence[NewDelivery]) -> None:
        del deliveries


def _now_ms() -> int:
    return int(1000 * time.time())


@dataclass(slots=True)
class _SampleGate:
    """A gate that gives one send time, and is closed from then on."""

    is_booked: bool = False

    async def look(self, triggers: Iterable[str]) -> dict[str, Open | Closed]:
        return dict.fromkeys(triggers, Open())

    async def book(
        self,
        *,
        kind: LaneKind,
        triggers: Sequence[str],
        horizon_seconds: float,
        probe: bool = False,
    ) -> SendTime | Closed:
        del kind, horizon_seconds, probe
        if self.is_booked:
            return Closed("ok", "warming", None)
        self.is_booked = True
        now = _now_ms()
        return SendTime(now, now, dict.fromkeys(triggers, 1), probe=False, incident=0)

    async def report(
        self,
        send_time: SendTime,
        verdict: Verdict,
        *,
        delivered: Mapping[str, int],
        batch: str = "",
    ) -> GateState:
        del send_time, verdict, delivered, batch
        return GateState("ok")

    async def answers(self, triggers: Iterable[str]) -> dict[str, TriggerAnswers]:
        return dict.fromkeys(triggers, TriggerAnswers())

    async def cancel(self, send_time: SendTime) -> None:
        del send_time

    async def pause(self, reason: str, by: str) -> None:
        del reason, by

    async def resume(self, trigger: str = "") -> None:
        del trigger


class _LeadingNowhere:
    """A sender whose connections lead nowhere; it says that the request was withheld."""

    def __init__(self) -> None:
        self.sent = 0
        self._sender = HttpSender(network=httpcore.AsyncMockBackend([_OK]))

    async def send(
        self, request: OutgoingRequest, deadline_seconds: float, permit: Permit = granted
    ) -> NoAnswer:
        # Names are not looked up for it, and files of certificates are not read.
        anywhere = replace(request, networks=None, tls=None)
        answer = await self._sender.send(anywhere, deadline_seconds, permit)
        self.sent += isinstance(answer, Answer)
        return NoAnswer(Silence.WITHHELD, possibly_applied=False)

    async def close(self) -> None:
        await self._sender.close()


@dataclass(frozen=True, slots=True)
class _SampleRenderer:
    renderer: Renderer

    async def render(
        self, template: Template, engine: Engine, rows: Sequence[Row], *, isolated: bool
    ) -> list[Rendered | Asserted | TemplateFailed | Killed]:
        del engine, isolated
        results = self.renderer.try_out(template, rows)
        return [each or TemplateFailed("it does not render", "", 0) for each in results]

    async def render_safely(
        self, template: Template, engine: Engine, rows: Sequence[Row], *, compares: bool = False
    ) -> list[Rendered | None]:
        del engine, compares
        return self.renderer.try_out(template, rows)

    def doubts(self, template: Template) -> bool:
        del template
        return False


class _SameNumber:
    """The same number for every name."""

    async def learn(self, audiences: Iterable[str], triggers: Iterable[str]) -> None:
        del audiences, triggers

    def audience(self, slug: str) -> int:
        del slug
        return 1

    def trigger(self, name: str) -> int:
        del name
        return 1

    def slugs(self, numbers: Iterable[int]) -> frozenset[str]:
        del numbers
        return frozenset()

    def triggers(self) -> dict[int, str]:
        return {}


class _NoStreaks:
    async def may_die(self, trigger: str, failure: Failure, count: int) -> int:
        del trigger, failure
        return count

    async def broken(self, trigger: str) -> None:
        del trigger

    async def pause(self, trigger: str, failure: Failure) -> None:
        del trigger, failure

    async def stop(self, trigger: str, reason: str) -> None:
        del trigger, reason


class _OwnLease:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def is_valid(self) -> bool:
        return True

"""A world for drains: partition and gate are the real scripts, clock and Insider are in memory.

Its processes can be killed or stopped in the middle of any call, Insider can answer or fail in
every way, and time is virtual. It checks after each step that the sum holds, and at each request
that nothing is sent twice without a reason.
"""

import asyncio
import contextlib
import contextvars
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from segrelay.jsonnet.rendered import Template
from segrelay.worker.adapters.redis.shared_keys import RedisNumbers
from segrelay.worker.batch.batch import Responses
from segrelay.worker.batch.delivery import LoadedTrigger
from segrelay.worker.batch.partition import Drain, Stop, Tally
from segrelay.worker.contract.events import Header, pack_profile
from segrelay.worker.contract.keys import (
    PartitionKeys,
    digest_of,
    split_stream_name,
    without_lane,
)
from segrelay.worker.contract.keys import gate as gate_key
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.triggers import Scope, label
from segrelay.worker.contract.words import Direction, kind_of_lane
from segrelay.worker.core.gate import POLICY, LaneKind
from segrelay.worker.core.verdicts import Failed
from segrelay.worker.destinations.api import Answer, NoAnswer, OutgoingRequest, ShapingRules
from segrelay.worker.destinations.insider.api import InsiderApi
from segrelay.worker.drain import run as run_drain
from tests.conformance.drain.fake_insider import (
    ATTRIBUTE,
    DELETE,
    UPSERT,
    Insider,
    Responds,
    Sending,
    emails,
    taken,
)
from tests.conformance.drain.fake_sender import FakeSender
from tests.conformance.drain.fakes import (
    FakeRenderer,
    FakeStreaks,
    SlowGate,
    SlowPartition,
)
from tests.conformance.drain.processes import (
    CURRENT,
    INTENT,
    LEASE_SECONDS,
    Edge,
    FakeClock,
    FakeLease,
    Process,
    task_of_a_process,
)
from tests.conformance.drain.store import Store
from tests.conformance.drain.virtual_time import VirtualLoop
from tests.conformance.gates import gate_of
from tests.simulation.virtual_redis import AtOnce, VirtualClient, at_once

START_MS = 1_764_000_000_000
BEFORE_US = 1_763_900_000_000_000
DEADLINE_SECONDS, LATE_SECONDS = 20.0, 30.0
RETENTION_SECONDS = 1e6


TRIGGERS = {
    "enter": (Direction.ENTER, UPSERT),
    "overwrite": (Direction.ENTER, UPSERT),
    "exit": (Direction.EXIT, DELETE),
    "exit-event": (Direction.EXIT, UPSERT),
}


def _template_of(trigger: str, url: str) -> str:
    """Return the template of a trigger; whichever has none of its own shares one with others."""
    return trigger if trigger in TRIGGERS else "exit" if url == DELETE else "enter"


class World:
    """One partition of Insider, its processes, and what befalls them."""

    numbers_of_worlds = itertools.count()

    def __init__(
        self,
        client: Redis,
        responds: Responds = taken,
        *,
        triggers: dict[str, tuple[Direction, str]] | None = None,
        on_ambiguous: Any = "resend",
        api: Any = None,
    ) -> None:
        self.loop = VirtualLoop()
        self.responds = responds
        self.client = VirtualClient.beside(client, self.now_us)
        self.redis = AtOnce(self.client)
        name = f"insider-{next(self.numbers_of_worlds)}"
        self.store = Store(client, PartitionKeys(name, 0))
        self.gate = gate_of(self.redis, name)
        self.insider = Insider()
        self.numbers = RedisNumbers(self.redis)
        self.paused: dict[str, str] = {}
        self.streaks = FakeStreaks(self.paused)
        self.render_seconds = 0.0
        self.live_waits_elsewhere = False
        self.kinds: tuple[LaneKind, ...] = ("live", "backfill")
        self.intent_seconds = self.book_seconds = 0.0
        self.lapses_when_connected = False
        self.look: Any = None
        self.read_error: Exception | None = None
        self.streams_read: set[str] = set()
        self.broken: AssertionError | None = None
        self.rendered: Counter[str] = Counter()
        self.sendings: list[Sending] = []
        self.by_position: dict[str, list[Sending]] = defaultdict(list)
        self.tallies: list[Tally] = []
        self.limits: dict[str, Any] = {
            "slice_seconds": 1.0,
            "request_deadline_seconds": DEADLINE_SECONDS,
            "late_seconds": LATE_SECONDS,
            "in_flight": 4,
        }
        self.api = api or InsiderApi()
        self.loaded = {
            name: self._loaded(name, url, on_ambiguous)
            for name, (_, url) in (triggers or TRIGGERS).items()
        }
        self.explains = {"refused"} if on_ambiguous == "dead_letter" else {"refused", "unsure"}
        self.newest: dict[str, str] = {}
        self.scopes: dict[str, Scope] = {}
        self.scopes_anew: dict[str, Scope] = {}
        self.pending_effects = 0
        self.sum_is_due = True
        self.loop.set_task_factory(task_of_a_process)

    def now_us(self) -> int:
        return START_MS * 1_000 + round(1e6 * self.loop.time())

    def now_ms(self) -> int:
        return self.now_us() // 1_000

    def _loaded(self, name: str, url: str, on_ambiguous: Any) -> LoadedTrigger:
        return LoadedTrigger(
            name=name,
            api=self.api,
            api_name="insider",
            template=Template(_template_of(name, url), "0" * 12),
            rules=ShapingRules(url, ATTRIBUTE, "US"),
            headers={},
            params={},
            settings={},
            on_ambiguous=on_ambiguous,
        )

    # What a test does.

    def load(self, trigger: str, edition: str) -> None:
        """Let this process work with an edition of a trigger, which others may have too."""
        self.loaded[trigger] = replace(self.loaded[trigger], edition=edition)

    def adopt(self, trigger: str, edition: str) -> None:
        """Make an edition of a trigger the newest, and let this process work with it."""
        self.newest[trigger] = edition
        self.load(trigger, edition)

    def put(self, *events: NewDelivery) -> None:
        """Put at once, also while the loop is running: nothing is waited for."""
        at_once(self.partition().accept(events))
        self.sum_is_due = True

    def run(self, main: Any) -> Any:
        return self.loop.run_until_complete(main)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.close()

    def drain(self, *, plan: dict[int, Any] | None = None, stop: Stop | None = None) -> Any:
        """Run one drain to its end; returns (tally, wake), or None if its process died."""
        return self.run(self.a_drain(plan or {}, stop))

    def drain_until_nothing_is_left(self, *, seconds: float = 3_600.0) -> None:
        """Drain again and again, more rarely while nothing can be done."""
        end, pause_seconds = self.loop.time() + seconds, 1.0
        while self.store.waiting() and self.loop.time() < end:
            ended = self.drain()
            pause_seconds = min(2 * pause_seconds, 8.0) if ended and did_nothing(ended[0]) else 1.0
            self.pass_seconds(min(pause_seconds, end - self.loop.time()))

    def pass_seconds(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    async def a_drain(self, plan: dict[int, Any], stop: Stop | None = None) -> Any:
        process = self.process(plan)
        context = contextvars.copy_context()
        context.run(CURRENT.set, process)
        drain = self.drain_of(process, stop or Stop())

        async def run() -> tuple[Tally, str]:
            return await run_drain(await self.prepared(drain))

        task = self.loop.create_task(run(), context=context)
        await asyncio.wait({task})
        if self.broken:
            raise self.broken
        if task.cancelled():
            assert process.dead
            return None
        tally, wake = task.result()
        self.tallies.append(tally)
        return tally, wake

    def process(self, plan: dict[int, Any]) -> Process:
        """Return a process for one drain."""
        return Process(self, plan)

    async def prepared(self, drain: Drain) -> Drain:
        """Return a drain with what is asked before it begins."""
        return replace(drain, looks=await drain.gate.look(drain.triggers))

    def partition(self) -> SlowPartition:
        """Return one who may hold the partition."""
        return SlowPartition(
            self.redis,
            self.store.keys,
            lease_seconds=LEASE_SECONDS,
            retention_seconds=RETENTION_SECONDS,
            late_seconds=LATE_SECONDS,
            owner="a test",
            most_bytes=1_000_000,
        )

    def gate_fields(self) -> dict[str, str]:
        """Return what Redis keeps of the gate."""
        stored = self.store.client.hgetall(gate_key(self.gate.gate_id))
        return {name.decode(): text.decode() for name, text in stored.items()}

    def due(self, *paused: str) -> str:
        """Return of which lane something may be done now, as a drain that ends says it."""
        partition = self.partition()
        labels = [label(name, edition) for name, edition in self.newest.items()]
        at_once(partition.take())
        return at_once(partition.release({}, paused, labels=labels)).wake

    async def fail_elsewhere(self, trigger: str) -> None:
        """Let a trigger fail in other partitions until it opens the breaker."""
        for _ in range(POLICY.failures):
            send_time = await self.gate.book(kind="live", triggers=[trigger], horizon_seconds=1.0)
            await self.gate.report(send_time, Failed("500"), delivered={})

    def drain_of(self, process: Process, stop: Stop) -> Drain:
        partition = self.partition()
        partition.intent_seconds, partition.read_error = self.intent_seconds, self.read_error
        partition.streams_read = self.streams_read
        process.token = partition.token

        async def read_wants() -> tuple[dict[str, Scope], dict[str, str]]:
            return self.scopes_anew or self.scopes, self.newest

        async def live_waits() -> bool:
            return self.live_waits_elsewhere

        lease = FakeLease(process, partition)

        def connected() -> None:
            if self.lapses_when_connected:
                lease.lapse()

        return Drain(
            partition=Edge(process, partition),
            gate=Edge(process, SlowGate(self)),
            sender=Edge(process, FakeSender(self._respond, connected)),
            renderer=FakeRenderer(process),
            numbers=self.numbers,
            streaks=self.streaks,
            lease=lease,
            triggers=self.loaded,
            paused=frozenset(self.paused),
            looks={},
            read_names=self.numbers.read,
            read_wants=read_wants,
            live_waits=live_waits,
            kinds=self.kinds,
            clock=FakeClock(process),
            jitter=random.Random(1),
            stop=stop,
            responses=Responses(),
            scopes=self.scopes,
            **self.limits,
        )

    # Insider.

    async def _respond(self, request: OutgoingRequest) -> Answer | NoAnswer:
        sending = self._sending(request)
        with self._remembering():
            self._check_explained(sending)
        self.sendings.append(sending)
        for position in sending.positions:
            self.by_position[position].append(sending)
        reply = self.responds(sending)
        sending.refuse(reply.refused_users)
        if reply.applied:
            self._take_effect(sending, reply.effect_seconds)
        if reply.outcome == "unsure":
            sending.box["outcome"] = "unsure"
        await asyncio.sleep(reply.answer_seconds)
        if reply.answer is None:
            await asyncio.sleep(10 * DEADLINE_SECONDS)
        sending.box["outcome"] = reply.outcome
        assert reply.answer is not None
        return reply.answer

    def _sending(self, request: OutgoingRequest) -> Sending:
        intent = INTENT.get()
        root = orjson.loads(request.body)
        users = tuple(root.pop("users"))
        return Sending(
            positions=tuple(position for position, _ in intent.deliveries),
            digest_of_position={position: header.digest for position, header in intent.deliveries},
            digests=frozenset(header.digest for _, header in intent.deliveries),
            url=request.url,
            users=users,
            root=root,
            process=CURRENT.get(),
            at=self.loop.time(),
            box={},
        )

    def _take_effect(self, sending: Sending, seconds: float) -> None:
        if seconds <= 0:
            self.insider.apply(sending.url, sending.taken_users)
            return
        self.pending_effects += 1

        def late() -> None:
            self.pending_effects -= 1
            self.insider.apply(sending.url, sending.taken_users)

        self.loop.call_later(seconds, late)

    # What always holds.

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """Remember what does not hold: a drain takes an error in a request for an answer."""
        try:
            yield
        except AssertionError as error:
            self.broken = self.broken or error
            raise

    def check_sum(self) -> None:
        """Check the sum where anything that it adds up may have changed."""
        if self.sum_is_due:
            self.sum_is_due = False
            with self._remembering():
                self._check_sum()

    def _check_sum(self) -> None:
        open_of = Counter[str]()
        for stored, n in self.store.counts.items():
            lane, name = without_lane(stored)
            kind = name.split("|", 1)[0]
            open_of[lane] += n if kind == "accepted" else 0
            open_of[lane] -= n if kind in {"delivered", "skipped", "dead", "discarded"} else 0
        for stream, waiting in self.store.lengths().items():
            open_of[kind_of_lane(split_stream_name(stream)[0])] -= waiting
        assert not any(open_of.values())

    def _check_explained(self, sending: Sending) -> None:
        people = emails(sending)
        assert len(set(people)) == len(people), "one profile twice in a request"
        for other in self.sendings:
            if other.process is sending.process and not other.box:
                assert not other.digests & sending.digests, "two requests of a profile at once"
        for position in sending.positions:
            for before in self.by_position[position]:
                vanished = before.process.dead or before.process.was_stopped
                explained = vanished and "unsure" in self.explains
                refused = position in before.refused_positions
                outcome = before.box.get("outcome", "")
                assert explained or refused or outcome in self.explains, position

    def count(self, kind: str) -> int:
        counts = self.store.counts.items()
        return sum(n for name, n in counts if without_lane(name)[1].split("|")[0] == kind)


def did_nothing(tally: Tally) -> bool:
    return not (tally.delivered or tally.skipped or tally.dead or tally.requests)


def event(
    person: str,
    audience: str = "vip",
    trigger: str = "enter",
    *,
    at: int = 1,
    lane: str = "live",
    state: bool = False,
    segments: Sequence[str] = (),
    direction: Direction | None = None,
    **profile: Any,
) -> NewDelivery:
    """Return a delivery; `at` in seconds since some day."""
    direction = direction or TRIGGERS.get(trigger, (Direction.ENTER, UPSERT))[0]
    time_us = BEFORE_US + at * 1_000_000
    email = f"{person}@example.com"
    header = Header(
        digest_of(f"email:{email}"),
        audience,
        direction,
        time_us,
        state=state,
        skip_hook=False,
        repair=False,
        accepted_ms=START_MS,
    )
    stamp = datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()
    text = {
        "email": email,
        "segments": list(segments),
        "segment_events": [{"segment": audience, "event": direction.value, direction.value: stamp}],
        **profile,
    }
    return NewDelivery(lane, trigger, header, pack_profile(orjson.dumps(text)))


def dead_letters(world: World) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in world.store.dead_letters.values()]


def reasons(world: World) -> list[str]:
    """Return the reasons of all dead letters."""
    return [dead_letter["reason"] for dead_letter in dead_letters(world)]


def members(world: World, audience: str = "vip") -> set[str]:
    return {email for email, slugs in world.insider.lists.items() if audience in slugs}

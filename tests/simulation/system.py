"""The whole of segrelay in one process: its drains, sweep, producers and operators.

The scripts are real and run on a real Valkey; clock, templates and Insider are the world's. What a
process asks of Redis can be lost, before it was done or after.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from segrelay.ops.dead_letters.commands import DeadLetters
from segrelay.ops.kept import Waiting
from segrelay.ops.person import Erasing
from segrelay.ops.state.waiting import EVERYTHING, Filter
from segrelay.producer.publishing.published import JobPosition, lay_out, write
from segrelay.worker.adapters.redis.gate import RedisGate, resume_gate
from segrelay.worker.adapters.redis.shared_keys import RedisNumbers, RedisStreaks, SharedKeys
from segrelay.worker.adapters.redis.survey import RedisLapsing, RedisSurvey
from segrelay.worker.batch.partition import Drain
from segrelay.worker.contract.keys import PartitionKeys, split_stream_name, without_lane
from segrelay.worker.contract.redis.accept import SCRIPT as ACCEPT
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import TRIGGER, Pause, clear_pause, field_of, set_pause
from segrelay.worker.core.rounds import Rounds
from segrelay.worker.destinations.api import Answer, NoAnswer, OutgoingRequest
from tests.configuration import insider, settings_in, trigger
from tests.conformance.drain.processes import CURRENT, INTENT, LEASE_SECONDS, Process
from tests.conformance.drain.store import Store
from tests.conformance.drain.world import LATE_SECONDS, World
from tests.simulation.history import AUDIENCES, Frame
from tests.simulation.virtual_redis import AtOnce, Scripts, VirtualClient

KEYS = PartitionKeys("insider", 0)
OUTCOMES = ("delivered", "skipped", "dead", "discarded")


@dataclass(eq=False)
class FallibleProcess(Process):
    """A process whose calls of Redis can be lost; `lost`: which of them, and when."""

    lost: dict[int, str] = field(default_factory=dict)
    calls: int = 0

    def fate_of_a_call(self) -> str:
        self.calls += 1
        return "before" if self.world.is_away() else self.lost.get(self.calls, "")


class System(World):
    """One partition of Insider with all that works on it.

    Args:
        client: To a Valkey that holds nothing else.
        settings: With the destination `insider`, of one partition.
        options: Of the world.
    """

    def __init__(self, client: Redis, settings: Settings, **options: Any) -> None:
        super().__init__(client, **options)
        client.flushall()
        client.script_flush()
        self.settings, self.scripts = settings, Scripts()
        self.jumped_us = 0
        self.away_until = 0.0
        self.processes: list[Process] = []
        self.client = VirtualClient.beside(client, self.now_us, self.scripts)
        self.client.fate_of_a_call = lambda: "before" if self.is_away() else ""
        self.redis: Any = AtOnce(self.client)
        self.store = Store(client, KEYS)
        self.gate = RedisGate(self.redis, settings.destinations["insider"], None)
        self.numbers = RedisNumbers(self.redis)
        self.shared_keys = SharedKeys(self.redis, settings)
        self.survey = RedisSurvey(self.client, settings)
        self.lapsing = RedisLapsing(self.client, settings)
        self.rounds = Rounds()
        self.woken = asyncio.Queue[str]()
        self.lost_calls: dict[int, str] = {}
        self.check_model: Callable[[Counter[str]], None] = lambda _: None

    def now_us(self) -> int:
        return super().now_us() + getattr(self, "jumped_us", 0)

    def is_away(self) -> bool:
        """Say whether Redis gives no answers now."""
        return self.loop.time() < self.away_until

    def _check_sum(self) -> None:
        open_of, counts = Counter[str](), self.store.counts
        for stored, n in counts.items():
            kind, _, rest = without_lane(stored)[1].partition("|")
            if kind == "accepted" or kind in OUTCOMES:
                open_of[rest.partition("|")[0]] += n if kind == "accepted" else -n
        for stream, waiting in self.store.lengths().items():
            open_of[split_stream_name(stream)[1]] -= waiting
        assert not any(open_of.values()), f"accepted is not what there is: {+open_of or open_of}"
        self.check_model(counts)

    async def _respond(self, request: OutgoingRequest) -> Answer | NoAnswer:
        with self._remembering():
            self._check_permitted()
        await CURRENT.get().step()
        return await super()._respond(request)

    def _check_permitted(self) -> None:
        """Check what has to hold when the first byte is written."""
        assert INTENT.get().intent_id in self.store.intents, "a request without an intent"
        if self.jumped_us:
            return  # a lease may have lapsed by the one clock, and not by the other
        token, until = self.store.client.hmget(self.store.keys.lease, "token", "until")
        is_held = (token or b"").decode() == CURRENT.get().token
        assert is_held, "a request without the lease"
        assert int(until) >= self.now_ms() - 1, "a request after the lease"
        rate = self.settings.destinations["insider"].rate_per_minute
        lately = sum(one.at > self.loop.time() - 60 for one in self.sendings)
        assert lately < rate, "more requests in a minute than the limit"

    # Workers.

    def process(self, plan: dict[int, Any]) -> Process:
        self.processes.append(FallibleProcess(self, plan, lost=self.lost_calls))
        return self.processes[-1]

    async def prepared(self, drain: Drain) -> Drain:
        standing = await self.shared_keys.standing("insider")
        return replace(
            await super().prepared(drain),
            paused=standing.paused,
            scopes=standing.scopes,
            streaks=RedisStreaks(self.redis, standing.streaks),
            read_wants=lambda: self.shared_keys.wants("insider"),
        )

    def sweep(self) -> int:
        """Wake whatever the sweep finds, let ledgers lapse; return how many were woken."""
        sights = self.survey.look()
        calls = self.rounds.wake_for(
            sights, queued=self.woken.qsize(), now_seconds=self.loop.time()
        )
        for call in calls:
            self.woken.put_nowait(call.queue)
        if not calls:
            self.lapsing.step()
        return len(calls)

    # Producers.

    def publish(
        self, deliveries: Sequence[NewDelivery], position: int | None, fate: str = ""
    ) -> None:
        """Write deliveries as a producer does; those of a job with its position.

        Args:
            deliveries: What is written.
            position: In the source of a job; None = it is no job.
            fate: `before` or `after` = the write or its answer is lost.

        Raises:
            RedisUnavailable: Nobody knows whether they were written.
        """
        job = "" if position is None else "import"
        progress = JobPosition(job, position, "file" if job else "")
        numbered = [each._replace(number=at) for at, each in enumerate(deliveries)]
        calls = lay_out({("insider", 0): numbered}, progress, secret_id=b"")
        self.sum_is_due = True
        if fate != "before":
            self.client.script_load(ACCEPT)
        usual, self.client.fate_of_a_call = self.client.fate_of_a_call, lambda: fate
        try:
            if write(self.client, calls, progress).woken:
                self.woken.put_nowait("live")
        finally:
            self.client.fate_of_a_call = usual

    # Operators.

    def pause(self, trigger: str) -> None:
        set_pause(self.client, field_of(TRIGGER, trigger), Pause("by hand"))

    def resume(self, trigger: str) -> None:
        clear_pause(self.client, field_of(TRIGGER, trigger))
        resume_gate(self.client, self.gate.gate_id, trigger=trigger)
        resume_gate(self.client, self.gate.gate_id)

    def discard(self, trigger: str) -> None:
        """Take back what waits for a trigger; "" = all that waits."""
        self._carry_out(Waiting(self.client, self.settings).discard(Filter(trigger=trigger)))

    def replay(self) -> None:
        self._carry_out(DeadLetters(self.client, self.settings).replay(EVERYTHING))

    def discard_dead_letters(self) -> None:
        self._carry_out(DeadLetters(self.client, self.settings).discard(EVERYTHING))

    def may_erase(self) -> bool:
        """Say whether the command would not have to wait for a drain, or for an answer."""
        ends, until = self.store.open, self.store.client.hget(self.store.keys.lease, "until")
        leased_until = int(until or 0)
        usual = leased_until + 1_000 * LATE_SECONDS
        return leased_until < self.now_ms() and all(
            ends.get(name, usual) <= self.now_ms() for name in self.store.intents
        )

    def erase(self, key: str) -> None:
        """Erase a person from Redis and, as the command does last, at Insider."""
        self.sum_is_due = True
        Erasing(self.client, self.settings, key).run()
        self.insider.forget(key.partition(":")[2])

    def _carry_out(self, work: Any) -> None:
        self.sum_is_due = True
        for _ in work.steps():
            self.check_sum()

    # Redis.

    def restart(self, seconds: float) -> None:
        """Let Redis be away for a while; what it had confirmed is there again, but no script."""
        self.away_until = self.loop.time() + seconds
        self.store.client.script_flush()
        self.scripts.forget()
        if seconds > LEASE_SECONDS:
            self._let_leases_lapse()

    def jump(self, seconds: float) -> None:
        """Set Redis' clock."""
        self.jumped_us += round(seconds * 1e6)
        self._let_leases_lapse()

    def _let_leases_lapse(self) -> None:
        """Whoever works now may lose its lease, as one that stands still does."""
        for process in self.processes:
            process.was_stopped |= not all(task.done() for task in process.tasks)


@contextmanager
def systems(url: str, folder: Path) -> Iterator[Callable[..., System]]:
    """Yield what makes the system of a frame, on a Valkey that waits for no disk.

    Args:
        url: Of the Valkey, which will be emptied for each system.
        folder: For configurations.
    """

    @cache
    def settings_of(frame: Frame) -> Settings:
        tables = [
            trigger(
                name,
                audiences=[name.partition("-")[2]] if frame.sharing else AUDIENCES,
                on=direction.value,
            )
            for name, (direction, _) in frame.triggers.items()
        ]
        return settings_in(folder, insider(rate=frame.rate), *tables, redis=url, partitions=1)

    with connect(url) as client:
        before = client.config_get("appendfsync")["appendfsync"]
        client.config_set("appendfsync", "no")
        yield lambda frame, **options: System(client, settings_of(frame), **options)
        client.config_set("appendfsync", before)

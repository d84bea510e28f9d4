"""Processes that can be killed or stopped in the middle of any call."""

import asyncio
import contextvars
from dataclasses import dataclass, field
from typing import Any, Self

from segrelay.worker.errors import RedisUnavailable

LEASE_SECONDS = 10.0

CHANGES_THE_SUM = {"settle", "accept"}

CURRENT: contextvars.ContextVar["Process"] = contextvars.ContextVar("process")
INTENT: contextvars.ContextVar[Any] = contextvars.ContextVar("intent")


@dataclass(eq=False)
class Process:
    """One worker process. `plan`: at which step (counted over all its calls) what happens to it.

    Attributes:
        token: With which it takes the lease.
    """

    world: Any
    plan: dict[int, Any] = field(default_factory=dict)
    steps: int = 0
    dead: bool = False
    stopped_until: float = 0.0
    was_stopped: bool = False
    token: str = ""
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def kill(self) -> None:
        self.dead = True
        for task in self.tasks:
            task.cancel()

    async def step(self) -> None:
        self.steps += 1
        action = self.plan.get(self.steps)
        if action == "kill":
            self.kill()
        elif action:
            self.stopped_until = self.world.loop.time() + action
            self.was_stopped = True
        if self.dead:
            raise asyncio.CancelledError
        await self.breathe()
        self.world.check_sum()

    async def breathe(self) -> None:
        if self.dead:
            raise asyncio.CancelledError
        while self.world.loop.time() < self.stopped_until:
            await asyncio.sleep(self.stopped_until - self.world.loop.time())
            if self.dead:
                raise asyncio.CancelledError

    def fate_of_a_call(self) -> str:
        """Return whether the next call of Redis is lost `before` or `after` it is done."""
        return ""

    @property
    def is_stopped(self) -> bool:
        return self.world.loop.time() < self.stopped_until


class Edge:
    """Lets a process die or stop before and after each call of what it wraps."""

    def __init__(self, process: Process, wrapped: Any) -> None:
        self._process = process
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._wrapped, name)
        if not callable(method):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            if name == "intent":
                INTENT.set(args[0])
            await self._process.step()
            result = await method(*args, **options)
            self._process.world.sum_is_due |= name in CHANGES_THE_SUM
            await self._process.step()
            return result

        return call


class FakeLease:
    def __init__(self, process: Process, partition: Any) -> None:
        self._process = process
        self._partition = partition
        self._loop = process.world.loop
        self._until = 0.0
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None

    def is_valid(self) -> bool:
        return not self._lost and self._loop.time() < self._until

    def lapse(self) -> None:
        """End now, as if no renewal had come through for so long."""
        self._until = self._loop.time()

    def __enter__(self) -> Self:
        self._renew()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._timer
        self._timer.cancel()

    def _renew(self) -> None:
        wait = 2.0
        if self._process.is_stopped:
            wait = self._process.stopped_until - self._loop.time()
        elif not self._process.dead and not self._lost:
            try:
                self._lost = not self._partition.renew()
                self._until = self._loop.time() + LEASE_SECONDS
            except RedisUnavailable:
                wait = 0.2
        self._timer = self._loop.call_later(wait, self._renew)
        if self._process.dead:
            self._timer.cancel()


class FakeClock:
    def __init__(self, process: Process) -> None:
        self._process = process

    def seconds(self) -> float:
        return self._process.world.loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._process.breathe()


def task_of_a_process(loop: Any, main: Any, **options: Any) -> Any:
    task: asyncio.Task[Any] = asyncio.Task(main, loop=loop, **options)
    context = options.get("context")
    process = context.get(CURRENT) if context else CURRENT.get(None)
    if process:
        process.tasks.append(task)
    return task

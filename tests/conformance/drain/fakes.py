"""What a drain works with in its world: deaths in a row, templates, disk and gate."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

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
from segrelay.worker.adapters.redis.partition import RedisPartition
from segrelay.worker.batch.delivery import Failure
from segrelay.worker.batch.partition import Intent, ReadEntries, ReadRange
from segrelay.worker.contract.words import DEATHS_IN_A_ROW
from tests.conformance.drain.fake_insider import ATTRIBUTE, POISON
from tests.conformance.drain.processes import Process
from tests.simulation.virtual_redis import at_once


class FakeStreaks:
    def __init__(self, paused: dict[str, str]) -> None:
        self.paused = paused
        self.streaks: dict[str, tuple[str, int]] = {}

    async def may_die(self, trigger: str, failure: Failure, count: int) -> int:
        cause, before = self.streaks.get(trigger, ("", 0))
        before = before if cause == failure.cause else 0
        may = max(0, min(count, DEATHS_IN_A_ROW - before))
        self.streaks[trigger] = (failure.cause, before + may)
        if before + may >= DEATHS_IN_A_ROW:
            self.paused[trigger] = failure.cause
            del self.streaks[trigger]
        return may

    async def broken(self, trigger: str) -> None:
        self.streaks.pop(trigger, None)

    async def pause(self, trigger: str, failure: Failure) -> None:
        self.paused.setdefault(trigger, failure.cause)

    async def stop(self, trigger: str, reason: str) -> None:
        self.paused.setdefault(trigger, reason)


class FakeRenderer:
    """Templates in Python; `behave` in a profile says what its template does."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def render_safely(self, _template: Template, _engine: Engine, row: Row) -> Any:
        """Return the body itself as its envelope, unless it holds the poison."""
        if POISON.encode() in row.profile:
            return TemplateFailed("who is this?", "", 0)
        return Rendered(orjson.dumps(orjson.loads(row.profile)["results"]))

    async def render(
        self,
        template: Template,
        engine: Engine,  # noqa: ARG002 - there is no engine
        rows: Sequence[Row],
        *,
        isolated: bool,
    ) -> list[Any]:
        world = self._process.world
        await asyncio.sleep(0)
        world.loop.pass_seconds(world.render_seconds)
        world.rendered[template.name] += len(rows)
        await self._process.step()
        results = [self._rendered(template.name, row, isolated) for row in rows]
        if self._process.dead:
            raise asyncio.CancelledError
        return results

    def _rendered(self, template: str, row: Row, isolated: bool) -> Any:
        try:
            return self._one(template, orjson.loads(row.profile), isolated)
        except orjson.JSONDecodeError:
            return TemplateFailed("the profile is no JSON", "", 0)

    def _one(self, template: str, profile: dict[str, Any], isolated: bool) -> Any:
        match profile.get("behave"):
            case "assert":
                return Asserted("has no consent")
            case "fail":
                return TemplateFailed("field does not exist: plan", "enter.jsonnet", 7)
            case "stumble":
                raise IndexError(profile["email"])
            case "kill" if isolated:
                return Killed()
            case "kill":
                self._process.kill()
        slug = profile["segment_events"][0]["segment"]
        user: dict[str, Any] = {"identifiers": {"email": profile["email"]}}
        match template:
            case "enter":
                user["attributes"] = {"custom": {ATTRIBUTE: [slug]}}
            case "overwrite":
                user["attributes"] = {"custom": {ATTRIBUTE: profile["segments"]}}
                user["not_append"] = True
            case "exit":
                user["custom"] = {"partial": {ATTRIBUTE: [slug]}}
            case _:
                user["attributes"] = {"custom": {"left": slug}}
        if "padding" in profile and "attributes" in user:
            user["attributes"]["custom"]["padding"] = profile["padding"]
        if "tells" in profile and "attributes" in user:
            user |= profile["tells"]["user"]
            user["identifiers"] |= profile["tells"]["identifiers"]
            user["attributes"] |= profile["tells"]["attributes"]
        return Rendered(orjson.dumps({"users": [user], **profile.get("root", {})}))


class SlowPartition(RedisPartition):
    """A partition whose disk may be slow, and which may fail."""

    intent_seconds = 0.0
    read_error: Exception | None = None
    round_trips = 0
    """Of reading streams."""
    entries_read = 0
    streams_read: set[str] = set()  # noqa: RUF012 - each drain is given its own

    def renew(self) -> bool:
        """Renew the lease, as the thread of a drain does."""
        return bool(
            at_once(self._call("intent", (self.keys.lease,), (self.token, self.lease_ms, "")))
        )

    async def read(self, ranges: Sequence[ReadRange]) -> list[ReadEntries]:
        if self.read_error:
            raise self.read_error
        self.streams_read.update(each.stream for each in ranges)
        found = await super().read(ranges)
        self.entries_read += sum(len(each.entries) for each in found)
        return found

    async def _next_entries(self, ranges: Sequence[ReadRange], most: int) -> list[ReadEntries]:
        self.round_trips += 1
        return await super()._next_entries(ranges, most)

    async def intent(self, intent: Intent) -> int:
        now_ms = await super().intent(intent)
        await asyncio.sleep(self.intent_seconds)
        return now_ms


class SlowGate:
    """The world's gate, whose answers may take their time."""

    def __init__(self, world: Any) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.gate, name)

    async def look(self, triggers: Iterable[str]) -> Any:
        return await (self._world.look or self._world.gate.look)(triggers)

    async def book(self, **wanted: Any) -> Any:
        booked = await self._world.gate.book(**wanted)
        await asyncio.sleep(self._world.book_seconds)
        return booked

"""Playing a history, and judging it by a model that knows nothing of our code.

The model knows what was published and what operators have done; the world remembers what Insider
was sent, what it answered and what it holds.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.keys import without_lane
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import RedisUnavailable
from tests.conformance.drain.fake_insider import NamesNobody, Reply, Sending, taken
from tests.conformance.drain.world import LATE_SECONDS
from tests.simulation.history import ANSWERS, Act, Happened, History, truth
from tests.simulation.system import OUTCOMES, System

LONGEST_SECONDS = 6_000.0
RESUMED_EVERY_SECONDS = 60.0
COMMANDS = {"pause", "discard", "replay", "discard_dead_letters", "restart", "jump"}


@dataclass
class Model:
    """What has to be true, whatever the code does.

    Args:
        accepted: The deliveries that Redis has confirmed or written without an answer.
        happened: What was published of each person and audience, and is not void.
        given_up: Of whom and what an operator has discarded something.
        forgotten: What was published of people before they were erased.
    """

    accepted: int = 0
    happened: dict[tuple[str, str], list[Happened]] = field(
        default_factory=lambda: defaultdict(list)
    )
    given_up: set[tuple[str, str]] = field(default_factory=set)
    forgotten: set[Happened] = field(default_factory=set)

    def forget(self, person: str) -> None:
        """Let what was published of a person be void."""
        for about in [about for about in self.happened if about[0] == person]:
            self.forgotten.update(self.happened.pop(about))

    def wrong(self, lists: dict[str, set[str]], dead: set[tuple[str, str]]) -> list[str]:
        """Return which memberships are not what the newest events say."""
        return [
            f"{person} in {audience}: {[(e.at, e.direction.value) for e in events]}"
            for (person, audience), events in self.happened.items()
            if (person, audience) not in self.given_up | dead
            and (truth(events) is Direction.ENTER)
            != (audience in lists.get(f"{person}@example.com", ()))
        ]


class Play:
    """One history while it is played.

    Args:
        system: Makes a system of a frame, and the function that answers for Insider.
    """

    def __init__(self, history: History, system: Callable[..., System]) -> None:
        frame, acts = history
        self.model = Model()
        self.timed = deque(
            sorted((a for a in acts if a.does in COMMANDS | {"publish", "erase"}), key=_time)
        )
        self.answers = {act.at: act.what for act in acts if act.does == "answer"}
        self.breaks = _by_drain(acts, "break")
        self.lost = _by_drain(acts, "lose")
        self.forgotten = {act.at for act in acts if act.does == "forget"}
        self.disturbs = any(act.does in {"break", "lose", "restart", "jump"} for act in acts)
        self.system = system(
            frame,
            responds=self._responds,
            triggers=frame.triggers,
            on_ambiguous=frame.on_ambiguous,
            api=NamesNobody(),
        )
        self.system.limits |= {
            "batch_entries": frame.batch_entries,
            "in_flight": frame.in_flight,
        }
        self.system.check_model = self._check
        self.requests = self.drains = 0
        self.answer_seconds = frame.answer_seconds
        self.is_over = False
        self.erasing: list[asyncio.Future[None]] = []

    def run(self) -> None:
        """Play it to its end; raises an AssertionError where a promise is broken."""
        with self.system as system:
            system.run(self._all())

    async def _all(self) -> None:
        self.begun = self.system.loop.time()
        tasks = [self._happen(), self._resume(), self._work(), self._work(), self._sweep()]
        await asyncio.gather(*tasks)
        await asyncio.gather(*self.erasing)
        await asyncio.sleep(3 * LATE_SECONDS)
        self._judge()

    def _now(self) -> float:
        return self.system.loop.time() - self.begun

    # Who acts.

    async def _happen(self) -> None:
        while self.timed:
            act = self.timed[0]
            await asyncio.sleep(max(0.0, act.at - self._now()))
            if act.does == "publish":
                await self._publish(*act.what)
            elif act.does == "erase":
                self.erasing.append(asyncio.ensure_future(self._erase(*act.what)))
            else:
                await self._until_done(lambda act=act: self._command(act))
            self.timed.popleft()

    async def _publish(self, some: Sequence[Any], position: int | None, fate: str) -> None:
        written, fates = False, deque([fate])

        def publish() -> None:
            nonlocal written
            for happened, _ in some:
                about = happened.person, happened.audience
                self.model.happened[about].append(happened)
                if happened in self.model.forgotten:
                    self.model.given_up.add(about)  # a part of it was erased, another comes now
            fate = "before" if self.system.is_away() else fates.popleft() if fates else ""
            if fate != "before" and not (written and position is not None):
                self.model.accepted += len(some)
                written = True
            self.system.publish([one for _, one in some], position, fate)

        await self._until_done(publish)

    async def _erase(self, person: str) -> None:
        while self.system.is_away() or not self.system.may_erase():  # noqa: ASYNC110 - it is virtual
            await asyncio.sleep(0.3)
        self.model.forget(person)
        await self._until_done(lambda: self.system.erase(f"email:{person}@example.com"))

    def _command(self, act: Act) -> None:
        dead = self._about_dead()
        before = self._about_waiting() | dead
        try:
            getattr(self.system, act.does)(*act.what)
        finally:
            if act.does.startswith("discard"):
                self.model.given_up |= before - self._about_waiting() - self._about_dead()
                self.model.given_up |= before if act.does == "discard" else dead

    async def _until_done(self, do: Callable[[], None]) -> None:
        """Do something again until Redis has confirmed it."""
        while True:
            try:
                return do()
            except RedisUnavailable:
                await asyncio.sleep(1.0)

    async def _resume(self) -> None:
        """Resume what is paused, now and then."""
        while not self.is_over:
            await asyncio.sleep(RESUMED_EVERY_SECONDS)
            with suppress(RedisUnavailable):
                for trigger in self.system.loaded:
                    self.system.resume(trigger)

    async def _work(self) -> None:
        """Drain when woken."""
        while await self.system.woken.get() and not self.is_over:
            number, self.drains = self.drains, self.drains + 1
            if number in self.forgotten:
                continue
            self.system.lost_calls = dict(self.lost[number])
            with suppress(RedisUnavailable):
                ended = await self.system.a_drain(dict(self.breaks[number]))
                if ended and ended[1]:
                    self.system.woken.put_nowait(ended[1])

    async def _sweep(self) -> None:
        """Sweep once a second, and more rarely while nothing is found, until all is done."""
        pause_seconds = 1.0
        while (
            self.timed or self.system.store.waiting() or not all(one.done() for one in self.erasing)
        ):
            assert self._now() < LONGEST_SECONDS, "it never comes to an end"
            await asyncio.sleep(pause_seconds)
            with suppress(RedisUnavailable):
                found = self.system.sweep()
                pause_seconds = 1.0 if found else min(1.5 * pause_seconds, 20.0)
        self.is_over = True
        for _ in range(2):
            self.system.woken.put_nowait("")

    def _responds(self, sending: Sending) -> Reply:
        number, self.requests = self.requests, self.requests + 1
        kind, *numbers = self.answers.get(number, ("",))
        if kind:
            return ANSWERS[kind](sending, *numbers)
        return replace(taken(sending), answer_seconds=self.answer_seconds)

    # What has to hold.

    def _check(self, stored: Counter[str]) -> None:
        """Check what has to hold at every moment."""
        store, counts = self.system.store, Counter[str]()
        for kind, n in _kinds(stored):
            counts[kind] += n
        assert counts["accepted"] >= self.model.accepted, "something accepted is lost"
        assert self.disturbs or counts["accepted"] == self.model.accepted, "accepted twice"
        letters = store.client.hlen(store.keys.dead_letters)
        assert counts["dead"] == letters, "dead letters are not what is counted"

    def _judge(self) -> None:
        """Check what has to hold at the end."""
        store = self.system.store
        self.system.sum_is_due = True
        self.system.check_sum()
        assert self.system.pending_effects == 0
        wrong = self.model.wrong(self.system.insider.lists, self._about_dead())
        assert wrong == [], f"not what the newest events say: {wrong}"
        assert not store.client.exists(store.keys.aside), "what is gone is still set aside"
        rows = Counter[str]()
        for row in store.outcomes:
            rows[row.outcome] += row.counts
        ends = Counter(
            {name: sum(n for kind, n in _kinds(store.counts) if kind == name) for name in OUTCOMES}
        )
        assert +Counter({n: rows[n] for n in OUTCOMES}) == +ends, "rows are not what is counted"

    def _about_dead(self) -> set[tuple[str, str]]:
        letters = map(orjson.loads, self.system.store.dead_letters.values())
        return {_about(one["profile"], one["audience"]) for one in letters}

    def _about_waiting(self) -> set[tuple[str, str]]:
        streams = self.system.store.streams.values()
        return {
            _about(orjson.loads(decode_profile(one.profile)), one.header.audience)
            for stream in streams
            for one in stream.values()
        }


def _kinds(counts: Counter[str]) -> Iterable[tuple[str, int]]:
    return ((without_lane(name)[1].partition("|")[0], n) for name, n in counts.items())


def _about(profile: dict[str, Any], audience: str) -> tuple[str, str]:
    return profile["email"].partition("@")[0], audience


def _time(act: Act) -> float:
    return act.at


def _by_drain(acts: Iterable[Act], does: str) -> dict[float, dict[Any, Any]]:
    found: dict[float, dict[Any, Any]] = defaultdict(dict)
    for act in acts:
        if act.does == does:
            found[act.at][act.what[0]] = act.what[1]
    return found


def broken_promise(history: History, system: Callable[..., System]) -> str:
    """Play a history; return which promise it breaks, and where, or ""."""
    try:
        Play(history, system).run()
    except AssertionError as error:
        return str(error) or "a drain has broken one of its own assertions"
    except Exception as error:  # noqa: BLE001 - whatever is raised
        return f"{type(error).__name__}: {error}"
    return ""

"""Whatever is asked of them, the partition in memory and the one in Valkey answer alike."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segrelay.worker.batch.delivery import DeadLetter
from segrelay.worker.batch.partition import Hold, LedgerText, Settlement
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.backoff import Backoff, Wait
from segrelay.worker.errors import LeaseLost
from tests.conformance.partition.conftest import Bench, intent_of
from tests.conformance.partition.steps import settled
from tests.nightly import amount

PEOPLE = ["ada", "bob", "cyd"]
STREAMS = ["live|vip-enter", "backfill|vip-enter", "job.may|vip-exit"]
REASONS = [None, None, Skip.SUPERSEDED, Skip.ALREADY_THERE, Death.REFUSED, Death.INVALID]
holder = st.sampled_from([0, 0, 0, 1, 2])
picks = st.lists(st.integers(0, 5), max_size=4)
step = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([0.001, 1.0, 4.0, 10.0, 31.0, -5.0, -7_200.0])),
    st.tuples(st.just("accept"), st.sampled_from(PEOPLE), st.sampled_from(STREAMS)),
    st.tuples(st.just("accept"), st.sampled_from(PEOPLE), st.sampled_from(STREAMS)),
    st.tuples(st.just("take"), holder),
    st.tuples(st.just("renew"), holder),
    st.tuples(st.just("ledgers"), holder, picks),
    st.tuples(st.just("note"), holder, picks),
    st.tuples(
        st.just("settle"),
        holder,
        picks,
        st.sampled_from(REASONS),
        st.sampled_from([0.0, 0.0, 30.0]),
        st.sampled_from(["", "of the last note"]),
    ),
    st.tuples(st.just("repeat"), holder),
    st.tuples(st.just("open"), holder),
    st.tuples(st.just("hold back"), holder),
    st.tuples(st.just("release"), holder, st.sampled_from([(), ("vip-enter",)]), st.booleans()),
    st.tuples(st.just("release held"), holder, st.integers(0, 5)),
)
histories = st.lists(step, min_size=10, max_size=40)


class Story:
    """Plays the same history on one partition and intents every answer."""

    def __init__(self, world: Any) -> None:
        self.bench = Bench(world)
        self.holders = [world.partition() for _ in range(3)]
        self.intents = 0
        self.last_intent: Any = None
        self.settlements: dict[int, Settlement] = {}

    def play(self, what: str, *more: Any) -> Any:
        try:
            return getattr(self, "do_" + what.replace(" ", "_"))(*more)
        except LeaseLost:
            return "lost"

    def _all(self) -> list[Any]:
        return [d for stream in STREAMS for d in self.bench.deliveries(stream)]

    def _picked(self, numbers: list[int]) -> list[Any]:
        waiting = self._all()
        return [waiting[n] for n in dict.fromkeys(numbers) if n < len(waiting)]

    def do_pass(self, seconds: float) -> None:
        self.bench.pass_seconds(seconds)

    def do_accept(self, person: str, stream: str) -> None:
        lane, trigger = stream.split("|")
        self.bench.accept(person, trigger=trigger, lane=lane)

    def do_take(self, who: int) -> Any:
        holding = self.bench.run(self.holders[who].take())
        return holding and (
            holding.now_ms,
            sorted((n.intent_id, n.open_until_ms) for n in holding.intents),
            len(holding.rendering),
            len(holding.backoffs),
            dict(holding.waits),
            sorted(holding.holds),
        )

    def do_renew(self, who: int) -> bool:
        return self.bench.world.renew(self.holders[who])

    def do_ledgers(self, who: int, numbers: list[int]) -> Any:
        picked = self._picked(numbers)
        digests = [d.header.digest for d in picked]
        return self.bench.run(self.holders[who].ledgers(digests, [d.position for d in picked]))

    def do_note(self, who: int, numbers: list[int]) -> Any:
        picked = self._picked(numbers)
        if not picked:
            return None
        self.intents += 1
        self.last_intent = intent_of(f"n{self.intents}", *picked)
        return self.bench.run(self.holders[who].intent(self.last_intent))

    def do_settle(
        self, who: int, numbers: list[int], reason: Any, open_seconds: float, intent: str
    ) -> int:
        picked = self._picked(numbers)
        text = f"record {self.intents}".encode()
        has_note = bool(intent and self.last_intent)
        self.settlements[who] = Settlement(
            [
                settled(d, reason, tells=n % 3 != 1, dead_letter=_dead_letter(reason, n))
                for n, d in enumerate(picked)
            ],
            intent_id=self.last_intent.intent_id if has_note else "",
            open_seconds=open_seconds if has_note else 0.0,
            ledgers={
                d.header.digest: LedgerText(text, lasts=bool(n % 2)) for n, d in enumerate(picked)
            },
            waits={"vip-enter": Wait(1, self.bench.now_ms + 5_000, 7)} if has_note else {},
            backoffs={d.position: Backoff(8, 1) for d in self._all()[:2]} if has_note else {},
            counts={"requests|vip-enter": 1},
        )
        return self.do_repeat(who)

    def do_repeat(self, who: int) -> int:
        if who not in self.settlements:
            return -1
        return self.bench.run(self.holders[who].settle(self.settlements[who]))

    def do_open(self, who: int) -> int:
        if self.last_intent is None:
            return -1
        records = {row.digest: LedgerText(b"tried") for row in self.last_intent.deliveries}
        opened = self.holders[who].intents_in_doubt([self.last_intent.intent_id], 30.0, records)
        return self.bench.run(opened)

    def do_hold_back(self, who: int) -> None:
        if self.last_intent:
            self.bench.run(self.holders[who].hold_back(self.last_intent, 30.0))

    def do_release(self, who: int, paused: tuple[str, ...], keep: bool) -> Any:
        return self.bench.run(self.holders[who].release({}, paused, keep_if_due=keep))

    def do_release_held(self, who: int, number: int) -> Any:
        holds = {
            d.stream: Hold(d.entry_id, self.bench.now_ms + 3_000) for d in self._picked([number])
        }
        return self.bench.run(self.holders[who].release(holds, (), keep_if_due=False))

    def contents(self) -> dict[str, Any]:
        """Return what is kept, without entry ids, which come from Valkey's own clock."""
        contents = self.bench.contents()
        return {
            **contents,
            "rendering": len(contents["rendering"]),
            "aside": sorted(map(str, contents["aside"].values())),
            "holds": {name: hold.until_ms for name, hold in contents["holds"].items()},
            "notes": {i: [row[1:] for row in rows[1]] for i, rows in contents["notes"].items()},
        }


def _dead_letter(reason: Any, number: int) -> DeadLetter | None:
    if not isinstance(reason, Death):
        return None
    return DeadLetter(f"insider.0.{number}", reason.value, b"{}", b'{"a":\n1}')


@settings(
    max_examples=amount(60, nightly=2_000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=histories)
def test_both_partitions_answer_and_remember_alike(two_worlds: Any, history: list[Any]) -> None:
    fake, real = (Story(world) for world in two_worlds())

    for what in history:
        answers = fake.play(*what), real.play(*what)

        assert answers[0] == answers[1], what
    assert fake.contents() == real.contents()

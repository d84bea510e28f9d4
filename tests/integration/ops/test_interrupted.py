"""Every command that writes more than once may be killed, or stand still, between any two writes.

Whatever was done by then, the sum is right at every moment and the audit has the command; given
again, it ends as if nothing had happened, also beside another process that did all of it meanwhile.
"""

import inspect

import pytest

from segrelay.ops import audiences, kept, sync
from segrelay.ops import person as people
from segrelay.ops.backfill import commands as backfills
from segrelay.ops.dead_letters import commands as letters
from segrelay.ops.kept import ExtentOptions, KeptOptions
from segrelay.ops.main import COMMANDS
from segrelay.ops.pause import resume
from segrelay.ops.run import redis
from segrelay.ops.state.opened import Asks
from segrelay.ops.terminal.frame import load
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.claim import compare
from segrelay.worker.contract.settings import (
    DEFAULT_AUDIENCE_ATTRIBUTE,
    load_settings,
)
from segrelay.worker.core.gate import gate_id
from tests.integration.ops.person.test_erased_person import (
    ELSE,
    WHO,
    everything_of_a_person,
    left_of,
    plain_dumps,
    traces,
)
from tests.integration.ops.relay import EXIT, LYTICS, payload
from tests.integration.ops.stock import stock
from tests.interruptions import (
    Case,
    everything,
    interrupted_anywhere,
    without_times,
)
from tests.members import known_by_a_sync
from tests.nightly import amount

pytestmark = pytest.mark.also_sealed(nightly=True)

EVERY = amount(7, nightly=1)
TIMES = amount(2, nightly=60)
PEOPLE = 12


class Commands:
    """What the table's cases are made of: a small segrelay, and its commands with any client."""

    def __init__(self, relay, sandbox, call):
        self.relay, self.sandbox, self.call = relay, sandbox, call

    def given(self, command, *names, **options):
        """Return a call of a command, as a process of its own that begins with a client."""

        def do(client):
            settings = load_settings(self.relay.settings.source, environ={})
            compare(self.relay.client, settings)
            return command(
                *names, **options, relay=Asks(WORDS[command], settings, client, yes=True)
            )

        return do

    def sum(self):
        return self.relay.status()

    def kept(self):
        return without_times(everything(self.relay.client))

    def at_insider(self):
        found = self.sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
        return {email: sorted(slugs) for email, slugs in found.items()}

    def afresh(self):
        self.relay.client.flushdb()
        self.relay.close()
        self.sandbox.reset()


@pytest.fixture(autouse=True)
def _plain(redis_url):
    """What Redis dumps is not compressed, so that it can be searched."""
    with plain_dumps(redis_url):
        yield


@pytest.fixture
def world(relay, sandbox, call):
    return Commands(relay, sandbox, call)


WORDS = {
    redis.confirm_destination: "redis confirm-destination",
    sync.reset: "sync reset",
    kept.discard: "discard",
    people.erase: "erase",
    audiences.retire: "audience retire",
    letters.discard: "dlq discard",
    letters.replay: "dlq replay",
    kept.discard_records: "quarantine discard",
    kept.replay_records: "quarantine replay",
    backfills.abort: "backfill abort",
    resume: "resume",
}


def stocked(world):
    stock(world.relay, PEOPLE)
    world.relay.close()


def with_waiting(world):
    relay = world.relay
    relay.publish(*(payload(f"p{n}@example.com", minute=1) for n in range(PEOPLE)))
    relay.publish(*(payload(f"q{n}@example.com", "gold") for n in range(PEOPLE)), job="load")


def with_dead(world):
    with_waiting(world)
    whole = world.relay.shipped("enter.jsonnet")
    world.relay.template("enter.jsonnet", "error 'broken'")
    world.relay.drain()
    world.relay.template("enter.jsonnet", whole)
    assert world.sum()["dead"] == 2 * PEOPLE


def with_quarantined(world):
    unknown = [payload(f"p{n}@example.com", f"a{n}") for n in range(PEOPLE)]
    world.relay.configure(triggers="")
    world.relay.publish(*unknown)
    world.relay.configure(EXIT)


def with_another(world):
    """A destination has a new name, and the address of one that Redis knows."""
    stocked(world)
    world.relay.change(
        ("[destinations.insider]", "[destinations.new]"),
        ('destination = "insider"', 'destination = "new"'),
    )


def with_moved(world):
    """A destination has a new address."""
    stocked(world)
    world.relay.change(("http://127.0.0.1", "http://localhost"))


def with_members(world):
    world.relay.configure(EXIT + LYTICS.format(url=world.sandbox.url))
    known_by_a_sync(world.relay, [f"p{n}@example.com" for n in range(PEOPLE)])


def with_job(world):
    rows = world.relay.settings.folder / "rows.ndjson"
    rows.write_text("".join(f'{{"email": "p{n}@example.com"}}\n' for n in range(PEOPLE)))
    named = ("--audience", "vip", "--as-of", "now", "--job", "load")
    world.call("backfill", "start", str(rows), *named)


def paused_by_itself(world):
    insider = world.relay.settings.destinations["insider"]
    gate = keys.gate(gate_id(insider.base_url, insider.gate_scope))
    world.relay.client.hset(gate, mapping={"pause": "unauthorized", "scope": "all"})


def delivered(world):
    """Return what becomes of all; what came twice is a duplicate the second time."""
    world.relay.drain()
    found = world.sum()
    return (
        found["delivered"],
        found["waiting"],
        found["dead"],
        len(list(Quarantine(world.relay.client).records())),
    )


def standing(world):
    return {name: each["state"] for name, each in world.sum()["destinations"].items()}


def of_redis(prepare, command, *names, truth=Commands.kept, **options):
    """Return a case that changes Redis only; by default, it ends with the same bytes in it."""
    words = WORDS[command]

    def case(world):
        prepare(world)
        return Case(
            world.given(command, *names, **options),
            lambda: truth(world),
            act=words,
            holds=world.sum,
        )

    return case


def paused(world):
    world.call("pause", "insider")


def erase(world):
    everything_of_a_person(world.relay)

    def truth():
        client = world.relay.client
        return left_of(client, WHO), sorted(traces(client, ELSE))

    return Case(world.given(people.erase, WHO), truth, act="erase", holds=world.sum)


def retire_audience(world):
    """Ten of twenty people leave an audience while it is retired."""
    relay = world.relay
    relay.configure(EXIT + LYTICS.format(url=world.sandbox.url))

    def prepare():
        world.afresh()
        known_by_a_sync(relay, [f"p{n}@example.com" for n in range(20)])
        relay.deliver(*(payload(f"p{n}@example.com") for n in range(20)))
        leave = [payload(f"p{n}@example.com", direction="exit", minute=5) for n in range(10)]
        relay.publish(*leave)

    def truth():
        relay.drain()
        relay.drain()
        return world.at_insider(), world.sum()["waiting"]

    do = world.given(audiences.retire, "vip")
    return Case(do, truth, prepare, relay.drain, act="audience retire", holds=world.sum)


def all_of(options):
    return {"options": options, "extent": ExtentOptions(everything=True)}


LETTERS = all_of(letters.DeadLetterOptions())
RECORDS = all_of(KeptOptions())
CASES = {
    "an erased person": erase,
    "a retired audience": retire_audience,
    "what waits": of_redis(with_waiting, kept.discard, **all_of(kept.WaitingOptions())),
    "discarded letters": of_redis(with_dead, letters.discard, **LETTERS),
    "replayed letters": of_redis(with_dead, letters.replay, **LETTERS),
    "discarded records": of_redis(with_quarantined, kept.discard_records, **RECORDS),
    "replayed records": of_redis(with_quarantined, kept.replay_records, truth=delivered, **RECORDS),
    "a new destination": of_redis(with_another, redis.confirm_destination, "new"),
    "a destination that has moved": of_redis(with_moved, redis.confirm_destination, "insider"),
    "a sync that begins anew": of_redis(with_members, sync.reset, "vip"),
    "an aborted job": of_redis(with_job, backfills.abort, "load"),
    "an end of a pause": of_redis(paused, resume, ["insider"], truth=standing),
    "a gate that opens": of_redis(paused_by_itself, resume, ["insider"], truth=standing),
}


OF_FEW_WRITES = {
    *("a new destination", "a destination that has moved", "a sync that begins anew"),
    *("an end of a pause", "a gate that opens"),
}
"""They are interrupted at night."""


@pytest.mark.parametrize("name", amount(sorted(CASES.keys() - OF_FEW_WRITES), sorted(CASES)))
def test_a_command_that_is_killed_or_stands_still_anywhere_is_given_again(world, redis_url, name):
    case = CASES[name](world)
    interrupted_anywhere(world.relay.client, redis_url, case, every=EVERY, times=TIMES)


OF_ONE_WRITE = {"audience set", "backfill pause", "backfill resume", "pause", "sync confirm"}
ELSEWHERE = {
    "backfill start": "its processes are killed in producer/backfill/test_backfill.py",
    "outcomes export": "what a kill leaves is staged in ops/outcomes/test_outcomes.py",
    "sync run": "its steps are killed in producer/sync/test_sync_interrupted.py",
}


def acting(command, *words):
    """Yield the words of all commands that the audit keeps."""
    inner = getattr(command, "commands", None)
    if inner is None:
        relay = inspect.signature(inspect.unwrap(command.callback)).parameters.get("relay")
        if relay and str(relay.annotation) in {"Acts", "Asks"}:
            yield " ".join(words)
    for name, sub in (inner or {}).items():
        yield from acting(sub, *words, name)


def test_every_command_that_the_audit_keeps_is_interrupted_here_or_elsewhere():
    found = {words for name, lazy in COMMANDS.items() for words in acting(load(name, lazy), name)}

    assert found == set(WORDS.values()) | OF_ONE_WRITE | ELSEWHERE.keys()

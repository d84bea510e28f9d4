"""Errors of ours, and entries that nobody can read: what they cost, and whom."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from segrelay.jsonnet.rendered import Template
from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.ledger import RECORD_FORMAT
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.gate import Open
from segrelay.worker.destinations.insider.api import InsiderApi
from segrelay.worker.errors import RedisUnavailable
from tests.conformance.drain.fake_insider import POISON, UPSERT, Sending, holds_poison, taken
from tests.conformance.drain.world import dead_letters, event, reasons


@pytest.mark.parametrize(
    ("header", "profile"),
    [
        (b"nonsense", b"{}"),
        (b'[1,"00112233445566778899","vip","enter","1",0,1,0]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",-1,0,1,0]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",99999999999999999999,0,1,0]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",1,0,"x",[]]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",1,0,1,0]', b"\x78broken"),
    ],
)
def test_an_unreadable_entry_dies_and_costs_its_neighbours_nothing(
    make_world, header: bytes, profile: bytes
) -> None:
    world = make_world()
    world.put(event("ada"), event("bob"), event("cyd"))
    middle = list(world.store.streams["live|enter"])[1]
    world.store.put_entry("live|enter", middle, header, profile)

    tally, _ = world.drain()

    assert (tally.delivered, tally.dead) == (2, 1)
    (dead_letter,) = dead_letters(world)
    assert dead_letter["reason"] == "unreadable"
    assert [base64.b64decode(text) for text in dead_letter["entry"]] == [header, profile]


def test_an_entry_of_another_version_pauses_its_trigger_and_stays(make_world) -> None:
    world = make_world()
    world.put(event("ada"), event("bob"), event("cyd", trigger="exit"))
    last = list(world.store.streams["live|enter"])[-1]
    world.store.put_entry("live|enter", last, b'[2,{"of":"another version"}]', b"{}")

    tally, _ = world.drain()

    assert (tally.delivered, tally.dead) == (1, 0)
    assert len(world.store.streams["live|enter"]) == 2
    assert "format 2" in world.paused["enter"]


def test_a_ledger_of_another_version_pauses_the_triggers_of_its_profile(make_world) -> None:
    world = make_world()
    world.put(event("ada"))
    world.drain()
    digest = digest_of("email:ada@example.com")
    newer = bytes([RECORD_FORMAT + 1]) + world.store.ledger(digest)[1:]
    world.store.put_ledger(digest, newer)
    world.put(event("ada", at=5), event("bob"), event("cyd", trigger="exit"))

    world.drain_until_nothing_is_left(seconds=20)

    assert world.count("delivered") == 2
    assert world.store.waiting() == 2
    assert world.store.ledger(digest) == newer
    assert f"ledger has format {RECORD_FORMAT + 1}" in world.paused["enter"]


class Stumbles(InsiderApi):
    """An API with an error of ours about one person, at one place."""

    def __init__(self, at: str) -> None:
        super().__init__()
        object.__setattr__(self, "_at", at)  # an API is frozen

    def shape(self, body: Any, *event: Any) -> Any:
        if self._at == "shape" and POISON in str(body):
            raise KeyError(POISON)
        return super().shape(body, *event)

    def correct(self, shaped: Any, *event: Any) -> Any:
        if self._at == "correct" and POISON in str(shaped.users):
            raise ZeroDivisionError
        return super().correct(shaped, *event)


@pytest.mark.parametrize("at", ["ledger", "render", "shape", "correct"])
def test_an_error_of_ours_about_one_delivery_costs_that_one(make_world, at: str) -> None:
    world = make_world(api=Stumbles(at))
    behave = {"behave": "stumble"} if at == "render" else {}
    world.put(*(event(f"p{n}") for n in range(120)), event("poison", **behave))
    if at == "ledger":
        world.store.put_ledger(digest_of(f"email:{POISON}"), b"\xff" * 10)

    tally, _ = world.drain()

    assert (tally.delivered, tally.dead) == (120, 1)
    (dead_letter,) = dead_letters(world)
    assert dead_letter["profile"]["email"] == POISON
    assert "An error of segrelay" in dead_letter["message"]
    assert POISON not in dead_letter["message"]


class OwnUrls(InsiderApi):
    """An API whose bodies name a URL to which nothing may be sent."""

    def shape(self, *body: Any) -> Any:
        return replace(super().shape(*body), url="ftp://example.com")


def test_a_url_that_can_not_be_used_costs_those_who_name_it(make_world) -> None:
    urls = {"enter": "ftp://example.com", "own": UPSERT}
    world = make_world(triggers={name: (Direction.ENTER, url) for name, url in urls.items()})
    world.loaded["own"] = replace(world.loaded["own"], api=OwnUrls())
    world.put(*(event("ada", trigger=name) for name in urls))
    for name in urls:
        world.run(world.gate.resume(name))

    world.drain()

    assert (reasons(world), list(world.paused)) == (["invalid"], ["enter"])
    assert (world.sendings, world.store.intents) == ([], {})
    assert world.run(world.gate.look(urls)) == dict.fromkeys(urls, Open(probe=True))


def test_whoever_has_no_envelope_dies_alone_and_the_next_is_the_probe(make_world) -> None:
    world = make_world()
    world.loaded["enter"] = replace(world.loaded["enter"], envelope=Template("whole", "0" * 12))
    world.run(world.gate.resume("enter"))
    world.put(event("poison"), *(event(f"p{n}") for n in range(9)))
    world.drain()
    world.put(event("q1"), event("poison", at=2), event("q2"))
    world.drain()
    world.put(event("q3"), event("poison", at=3))

    world.drain()

    assert reasons(world) == ["template_error"] * 3
    assert [len(sending.users) for sending in world.sendings] == [1, 8, 1, 1, 1]
    assert world.store.waiting() == 0


def test_an_error_of_ours_in_a_request_is_an_answer_not_understood(make_world) -> None:
    stumbles = [True]

    def responds(sending: Sending) -> Any:
        if holds_poison(sending) and stumbles:
            stumbles.clear()
            sending.box["outcome"] = "unsure"
            raise ValueError(POISON)
        return taken(sending)

    world = make_world(responds)
    world.put(event("poison"), event("ada"))
    world.drain()

    assert world.count("unanswered") == 1
    assert len(world.store.open) == 1
    assert world.store.token == ""
    world.drain_until_nothing_is_left(seconds=60)
    assert world.count("delivered") == 2


@pytest.mark.parametrize("error", [KeyError("x"), RedisUnavailable("It blinked.")])
def test_a_drain_gives_its_lease_back_on_every_way_out(make_world, error: Exception) -> None:
    world = make_world()
    world.put(event("ada"))
    world.read_error = error

    with pytest.raises(type(error)):
        world.drain()

    assert world.store.token == ""
    world.read_error = None
    world.drain()
    assert world.count("delivered") == 1


def test_rendering_ends_when_the_process_is_told_to_stop(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(1_000)))
    world.render_seconds = 0.5
    stop = Stop()
    world.loop.call_later(0.1, lambda: setattr(stop, "told_at_seconds", world.loop.time()))

    world.drain(stop=stop)

    assert world.rendered["enter"] <= 300
    assert world.sendings == []
    assert world.store.token == ""

"""A canary of a changed template, with several processes, on a real Redis and the sandbox."""

import asyncio
import time
from contextlib import ExitStack, closing
from dataclasses import replace

import orjson
import pytest

from segrelay.jsonnet.rendered import Template
from segrelay.ops.main import app
from segrelay.worker.adapters.redis.self_pause import Canaries
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.contract.triggers import let_go
from segrelay.worker.node.loading import EVERY_SECONDS
from segrelay.worker.node.runtime import runtime_for
from tests.integration.ops.relay import ENTER, EXIT, assert_sum, payload

MARKED = """
local event = import "lytemplates.libsonnet";
assert !std.startsWith(event.get("email"), "skip") : "not wanted";
{{ users: [{{
  identifiers: {{ email: event.get("email") }},
  attributes: {{ custom: {{ lytics_computed_attr: [event.segSlug()], mark: ["{}"] }} }},
}}] }}
"""
CANARY = ENTER + "canary = {}\n"


class Processes:
    """Some processes of workers, whose drains a test begins one by one."""

    def __init__(self, relay, stack, count):
        self.relay = relay
        self.all = [stack.enter_context(closing(runtime_for(relay.settings))) for _ in range(count)]

    def drain(self, *numbers, rounds=1):
        """Let processes drain all there is in turn; all of them, where none is named.

        Where nothing is, they look at one partition, and at their templates.
        """
        for _ in range(rounds):
            held = [
                each for each in self.relay.partitions() if self.relay.client.scard(each.streams)
            ]
            for partition in held or self.relay.partitions()[:1]:
                for number in numbers or range(len(self.all)):
                    self.all[number].drain("insider", partition.number, Stop())


@pytest.fixture
def change(relay):
    """Change the template, so that all processes see it at their next drain."""

    def write(mark):
        relay.template("enter.jsonnet", MARKED.format(mark))
        time.sleep(EVERY_SECONDS)

    return write


@pytest.fixture
def start(relay, sandbox):
    with ExitStack() as stack:

        def begin(canary, count=2):
            sandbox.settings(panel_attributes={"lytics_computed_attr": "array", "mark": "array"})
            relay.template("enter.jsonnet", MARKED.format("one"))
            relay.configure(EXIT, triggers=CANARY.format(canary))
            processes = Processes(relay, stack, count)
            processes.drain()
            let_go(relay.client, "vip-enter", was_paused=False)
            publish(relay, "before", 30)
            processes.drain()
            assert trigger(relay)["delivered"] == 30
            return processes

        yield begin


def publish(relay, name, count):
    relay.publish(*(payload(f"{name}{n}@example.com") for n in range(count)))


def trigger(relay):
    found = relay.status()
    assert_sum(found)
    return found["triggers"]["vip-enter"]


def marks(sandbox):
    found = {}
    for held in sandbox.get("memberships", attribute="mark").values():
        for mark in held:
            found[mark] = found.get(mark, 0) + 1
    return found


def test_exactly_so_many_go_first_over_all_processes_and_partitions(relay, sandbox, start, change):
    processes = start(canary=60)
    publish(relay, "new", 400)
    change("two")

    processes.drain(rounds=3)

    assert marks(sandbox) == {"one": 30, "two": 60}
    found = trigger(relay)
    assert (found["state"], found["waiting"]) == ("paused", 340)
    assert found["canary"]["outcomes"] == {"delivered": 60}
    assert "100.0% delivered, 0.0% skipped, 0.0% dead of 60" in found["reason"]
    assert "100.0% delivered, 0.0% skipped, 0.0% dead of 30" in found["reason"]


def test_a_changed_template_is_an_act_and_the_first_one_is_none(relay, start, change):
    processes = start(canary=60)
    assert list(read_acts(relay.client)) == []
    change("two")

    processes.drain(rounds=2)

    (act,) = read_acts(relay.client)
    assert (act.what, act.subject, act.by) == ("template change", "vip-enter", "segrelay")
    assert act.arguments["version"] != act.arguments["before"]


def test_the_first_version_of_a_trigger_has_its_canary_too(relay, sandbox):
    sandbox.settings(panel_attributes={"lytics_computed_attr": "array", "mark": "array"})
    relay.template("enter.jsonnet", MARKED.format("one"))
    relay.configure(EXIT, triggers=CANARY.format(10))
    publish(relay, "first", 30)

    with ExitStack() as stack:
        Processes(relay, stack, 2).drain(rounds=3)

    found = trigger(relay)
    assert (found["state"], found["delivered"], found["waiting"]) == ("paused", 10, 20)
    assert "no version was before it" in found["reason"]


def test_resume_lets_the_rest_go(relay, sandbox, start, change, call):
    processes = start(canary=60)
    publish(relay, "new", 400)
    change("two")
    processes.drain(rounds=3)

    answer = call(app, "resume", "vip-enter", "--no-wait", "--json")
    processes.drain(rounds=2)

    assert orjson.loads(answer.stdout)["resumed"][0]["changed"]
    assert marks(sandbox) == {"one": 30, "two": 400}
    assert (trigger(relay)["state"], trigger(relay)["waiting"]) == ("ok", 0)


def test_the_summary_tells_why_deliveries_were_skipped(relay, start, change):
    processes = start(canary=40)
    publish(relay, "skip", 10)
    publish(relay, "new", 30)
    change("two")

    processes.drain(rounds=3)

    assert trigger(relay)["canary"]["outcomes"] == {"delivered": 30, "skipped|asserted": 10}
    assert "75.0% delivered, 25.0% skipped (asserted 10)" in trigger(relay)["reason"]


def test_what_the_ledger_skips_is_none_of_the_canary(relay, start, change):
    processes = start(canary=60)
    publish(relay, "before", 30)
    publish(relay, "new", 100)
    change("two")

    processes.drain(rounds=3)

    assert trigger(relay)["skipped"] > 0
    assert trigger(relay)["canary"]["outcomes"] == {"delivered": 60}


def test_a_process_with_the_older_version_leaves_the_trigger_alone(relay, sandbox, start, change):
    processes = start(canary=60)
    publish(relay, "new", 100)
    processes.all[1].upkeep.clock = lambda: 0.0  # It never looks again.
    change("two")

    processes.drain(0)
    processes.drain(1)
    relay.publish(payload("late@example.com"))
    processes.drain(1)

    assert marks(sandbox)["one"] == 30


def test_a_process_that_is_forked_anew_does_not_bring_back_what_its_node_loaded_before(
    relay, start, change
):
    processes = start(canary=0, count=1)
    one = processes.all[0]
    inherited = {name: dict(each) for name, each in one.upkeep.triggers.items()}
    before = trigger(relay)["version"]
    change("two")
    processes.drain(0)
    newest = trigger(relay)["version"]

    one.runner.run(Canaries(one.client, relay.settings).adopt(inherited["insider"], ()))

    assert newest != before
    assert trigger(relay)["version"] == newest


def test_other_triggers_of_the_destination_go_on(relay, start, change):
    processes = start(canary=10)
    publish(relay, "new", 200)
    publish(relay, "left", 200)
    relay.publish(
        *(payload(f"left{n}@example.com", direction="exit", minute=5) for n in range(200))
    )
    change("two")

    processes.drain(rounds=3)

    found = relay.status()["triggers"]
    assert found["vip-enter"]["state"] == "paused"
    assert found["vip-exit"]["waiting"] == 0


def test_a_version_that_was_not_approved_is_canaried_again(relay, sandbox, start, change, call):
    processes = start(canary=60)
    publish(relay, "new", 400)
    change("two")
    processes.drain(rounds=3)
    change("one")
    call(app, "resume", "vip-enter", "--no-wait")
    processes.drain(rounds=2)
    assert marks(sandbox) == {"one": 30 + 340, "two": 60}  # the version before needs no canary
    assert trigger(relay)["state"] == "ok"

    publish(relay, "more", 100)
    change("two")
    processes.drain(rounds=3)

    assert marks(sandbox)["two"] == 120
    assert trigger(relay)["state"] == "paused"


def test_resume_in_the_midst_of_a_canary_ends_it(relay, start, change, call):
    processes = start(canary=60)
    publish(relay, "new", 20)
    change("two")
    processes.drain(rounds=2)
    assert trigger(relay)["canary"]["left"] == 40

    call(app, "resume", "vip-enter", "--no-wait")
    publish(relay, "more", 200)
    processes.drain(rounds=2)

    assert (trigger(relay)["state"], trigger(relay)["waiting"]) == ("ok", 0)


def test_resume_of_all_that_is_paused_leaves_a_canary_that_goes(relay, start, change, call):
    processes = start(canary=60)
    publish(relay, "new", 20)
    change("two")
    processes.drain(rounds=2)

    answer = call(app, "resume", "--all", "--no-wait")

    assert "nothing was paused" in answer.output
    assert trigger(relay)["canary"]["left"] == 40


def test_a_canary_goes_on_after_a_pause_for_another_reason(relay, start, change, call):
    processes = start(canary=60)
    publish(relay, "new", 20)
    change("two")
    processes.drain(rounds=2)

    call(app, "pause", "trigger:vip-enter")
    call(app, "resume", "vip-enter", "--no-wait")
    publish(relay, "more", 200)
    processes.drain(rounds=3)

    assert trigger(relay)["canary"]["outcomes"] == {"delivered": 60}
    assert trigger(relay)["state"] == "paused"


def test_what_a_killed_drain_held_ends_the_canary_with_fewer(relay, sandbox, start, change):
    processes = start(canary=60)
    publish(relay, "new", 400)
    change("two")
    killed = processes.all[0]
    killed.upkeep.look()
    dying = Canaries(killed.client, relay.settings, share_ms=500)
    canary_shares = killed.runner.run(dying.begin("a drain", killed.upkeep.triggers["insider"], ()))
    assert canary_shares.shares == {"vip-enter": 25}

    time.sleep(0.6)  # the share lapses
    processes.drain(rounds=3)

    assert trigger(relay)["state"] == "paused"
    assert marks(sandbox)["two"] == 35


def test_a_process_whose_new_template_is_broken_does_not_bring_back_the_older(relay, start, change):
    processes = start(canary=60)
    publish(relay, "new", 100)
    change("two")
    processes.drain(0, rounds=3)
    after = trigger(relay)["version"]
    relay.template("enter.jsonnet", "{ users: [ }")
    time.sleep(EVERY_SECONDS)

    processes.drain(1, rounds=2)

    assert trigger(relay)["version"] == after


def times_that_counts_were_read(relay, triggers):
    """Return how often a first drain reads a hash of Redis whole, with so many triggers."""
    names = [f"[triggers.t{number}]" for number in range(triggers)]
    tables = "".join(ENTER.replace("[triggers.vip-enter]", name) for name in names)
    relay.configure(EXIT, triggers=tables)

    def read():
        return relay.client.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"]

    with closing(runtime_for(relay.settings)) as runtime:
        before = read()
        runtime.drain("insider", 0, Stop())
        return read() - before


def test_a_process_adopts_the_templates_of_many_triggers_with_as_few_readings_as_of_one(relay):
    assert times_that_counts_were_read(relay, 1) >= times_that_counts_were_read(relay, 40)


def test_a_change_that_was_undone_goes_on_nowhere_without_a_canary(relay, redis_url):
    relay.configure(EXIT, triggers=CANARY.format(60))
    with closing(runtime_for(relay.settings)) as runtime:
        route = runtime.upkeep.triggers["insider"]["vip-enter"]

    async def play():
        client = connect_async(redis_url)
        first, second, restarted = (Canaries(client, relay.settings) for _ in range(3))

        async def begin(process, owner, version):
            template = Template("enter.jsonnet", version)
            found = await process.begin(
                owner, {"vip-enter": replace(route, template=template)}, frozenset()
            )
            return "held" if found.held else found.shares.get("vip-enter", "all")

        await begin(first, "a", "one")
        let_go(relay.client, "vip-enter", was_paused=False)
        told = [
            await begin(first, "a", "one"),
            await begin(second, "b", "two"),
            await begin(restarted, "c", "one"),
            await begin(second, "d", "two"),
            await begin(second, "e", "two"),
            await begin(first, "f", "one"),
        ]
        await client.aclose()
        return told

    assert asyncio.run(play()) == ["all", 25, "all", "held", 25, "held"]

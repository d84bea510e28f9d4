"""A program that asks by the Model Context Protocol, beside a real worker."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from threading import Event, Thread

import orjson
import pytest

from segrelay.ops.console.acts import ACTS
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.contract.redis.acts import read_acts
from tests.journeys.console.console_world import MENDED, REFUSED, World, event
from tests.journeys.play import status_of
from tests.waiting import until

DEAD = 3
READ = {
    *("problems", "status", "why", "dead_letter_causes", "dead_letters", "dead_letter"),
    *("quarantine", "jobs", "syncs", "acts"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("assistant"), syncs="") as it:
        it.start_worker("--concurrency=1")
        it.wait_until_ready()
        it.publish([event("who-is-asked-for@example.com", first_name="Ann")])
        it.publish([event(f"p{n}@{REFUSED}") for n in range(DEAD)])
        it.settle(delivered=1, dead=DEAD)
        yield it


def asked(world, *options, question):
    """Start the server as an assistant does, and return what a question to it brings."""
    # Each process that collects this file would load them, for half a second.
    from mcp import ClientSession, StdioServerParameters  # noqa: PLC0415
    from mcp.client.stdio import stdio_client  # noqa: PLC0415

    command, *arguments = own_module("segrelay.ops.main", "mcp", *options)
    server = StdioServerParameters(
        command=command, args=arguments, env=world.environment, cwd=world.folder
    )

    async def run():
        async with AsyncExitStack() as stack:
            streams = await stack.enter_async_context(stdio_client(server))
            session = await stack.enter_async_context(ClientSession(*streams))
            await session.initialize()
            return await question(session)

    return asyncio.run(asyncio.wait_for(run(), 120))


def called(world, name, *options, **given):
    """Return what a tool answers; a refusal is an error with its message."""
    answer = asked(world, *options, question=lambda session: session.call_tool(name, given))
    text = answer.content[0].text
    return text if answer.is_error else orjson.loads(text)


LOOKS = {
    "status": {},
    "problems": {},
    "why": {"profile": "who-is-asked-for@example.com"},
    "dead_letter_causes": {},
    "dead_letters": {"limit": 1},
    "dead_letter": {"id": "insider.1.0-1"},
}


def test_without_actions_it_only_reads_and_tells_nobodys_data(world):
    async def ask(session):
        tools = (await session.list_tools()).tools
        refused = await session.call_tool("dlq_replay", {"why": "why not"})
        answers = [await session.call_tool(name, given) for name, given in LOOKS.items()]
        return tools, refused, [answer.content[0].text for answer in answers]

    tools, refused, answers = asked(world, question=ask)
    status, problems, why, causes, letters, no_letter = answers

    assert {one.name for one in tools} == READ
    assert all(one.annotations.read_only_hint for one in tools)
    assert refused.is_error
    assert orjson.loads(status)["dead"] == status_of(world)["dead"] == DEAD
    assert "problems" in orjson.loads(problems)
    assert '"delivered"' in why
    assert [one["count"] for one in orjson.loads(causes)] == [DEAD]
    assert len(orjson.loads(letters)) == 1
    assert REFUSED not in letters
    assert "no letter" in no_letter.lower()


def test_nobody_on_the_machine_sees_of_whom_it_asks(world):
    seen, asks = [], Event()

    def look():
        while not asks.wait(0.01):
            for one in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.append(one.read_bytes())

    looker = Thread(target=look)
    looker.start()
    found = called(world, "why", profile="who-is-asked-for@example.com")
    asks.set()
    looker.join()

    assert "delivered" in str(found)
    assert any(b"segrelay.ops.main" in line for line in seen)
    assert not any(b"who-is-asked-for@example.com" in line for line in seen)


def test_acts_need_a_reason_and_a_number_and_stand_in_the_audit(world):
    async def act(session):
        names = {one.name for one in (await session.list_tools()).tools}
        without = await session.call_tool("dlq_replay", {"trigger": "enter"})
        chosen = await session.call_tool("dlq_replay", {"why": "all of them"})
        number = await session.call_tool("dlq_discard", {"trigger": "enter", "why": "old"})
        many = await session.call_tool(
            "dlq_discard", {"trigger": "enter", "why": "old", "at_most": DEAD - 1}
        )
        (world.folder / "templates" / "insider" / "enter.jsonnet").write_text(MENDED)
        done = await session.call_tool(
            "dlq_replay", {"trigger": "enter", "why": "the template is mended"}
        )
        return names, without, chosen, number, many, done

    names, without, chosen, number, many, done = asked(world, "--actions", question=act)

    assert names == READ | {command.replace(" ", "_") for command in ACTS}
    assert without.is_error
    assert "reason" in without.content[0].text
    assert "Nothing is chosen" in chosen.content[0].text
    assert "how many it will be (`at_most`)" in number.content[0].text
    assert many.is_error
    assert f"{DEAD} letters" in many.content[0].text
    assert not done.is_error, done.content[0].text
    until(lambda: status_of(world)["delivered"] == 1 + DEAD, 60)
    act = next(one for one in read_acts(world.client) if one.what == "dlq replay")
    assert (act.reason, act.by.endswith("by mcp")) == ("the template is mended", True)

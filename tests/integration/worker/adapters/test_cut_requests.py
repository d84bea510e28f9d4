"""Requests that are cut at any moment: the connections of the process stay usable."""

import asyncio
import gc
import random
from pathlib import Path

import pytest

from segrelay.worker.adapters.sender import HttpSender
from segrelay.worker.destinations.api import Answer
from tests.integration.worker.adapters.sending import answer, request_to, run, server
from tests.tls import server_context, write_certificates

ROUNDS = 40


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def answer_late(request, writer):
    await asyncio.sleep(0.005)
    await answer(request, writer)


async def send_and_cut(folder, networks, connections, at_once, most_files):
    """Send many requests that are cut, and one that is not; wait for the end of connections."""
    rng = random.Random(1)
    authority = str(folder / "authority.pem")
    sender = HttpSender(connections=connections)
    async with server(answer_late, server_context(folder)) as url:
        request = request_to(url, "/x", api="http", networks=networks, authority=authority)
        for _ in range(ROUNDS):
            cut = (sender.send(request, rng.random() * 0.03) for _ in range(at_once))
            await asyncio.gather(*cut)
        found = await sender.send(request, 30)
        await sender.close()
        while open_files() >= most_files:  # noqa: ASYNC110 - the system closes them
            await asyncio.sleep(0.05)
        return found


@pytest.mark.parametrize("networks", [("127.0.0.0/8",), None])
@pytest.mark.parametrize(("connections", "at_once"), [(16, 4), (2, 4)])
def test_cut_requests_leave_no_connection_in_the_way(tmp_path, networks, connections, at_once):
    write_certificates(tmp_path)
    most_files = open_files() + 10
    gc.disable()
    try:
        found = run(send_and_cut(tmp_path, networks, connections, at_once, most_files))
    finally:
        gc.enable()

    assert isinstance(found, Answer)

"""Requests that are cut at any moment: the connections of the process stay usable."""

import asyncio
import gc
import random
from pathlib import Path

import pytest

from segrelay.worker.adapters.sender import HttpSender
from segrelay.worker.destinations.api import Answer, OutgoingRequest
from tests.tls import server_context, write_certificates

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
ROUNDS = 40


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def answer(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n{}")
            await asyncio.sleep(0.005)
            writer.write(ANSWER)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


async def send_and_cut(folder, networks, connections, at_once):
    """Send many requests that are cut, and one that is not; return its answer and open files."""
    rng = random.Random(1)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context(folder))
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    authority = str(folder / "authority.pem")
    request = OutgoingRequest(
        url, {}, {}, b"{}", api="http", networks=networks, authority=authority
    )
    sender = HttpSender(connections=connections)
    for _ in range(ROUNDS):
        await asyncio.gather(*(sender.send(request, rng.random() * 0.03) for _ in range(at_once)))
    found = await sender.send(request, 10)
    await sender.close()
    await asyncio.sleep(0.2)
    files = open_files()
    server.close()
    return found, files


@pytest.mark.parametrize("networks", [("127.0.0.0/8",), None])
@pytest.mark.parametrize(("connections", "at_once"), [(16, 4), (2, 4)])
def test_cut_requests_leave_no_connection_in_the_way(tmp_path, networks, connections, at_once):
    write_certificates(tmp_path)
    before = open_files()
    gc.disable()
    try:
        found, files = asyncio.run(send_and_cut(tmp_path, networks, connections, at_once))
    finally:
        gc.enable()

    assert isinstance(found, Answer)
    assert files < before + 10

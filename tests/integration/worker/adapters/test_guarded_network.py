"""Connections to addresses that may not be had, on a real server and with names of our own."""

import asyncio

import pytest

from segrelay.worker.adapters.sender import HttpSender
from segrelay.worker.destinations.api import Answer, NoAnswer, Silence
from segrelay.worker.errors import ConfigurationInvalid
from tests.integration.worker.adapters.sending import answer, listening, request_to, server

LOOPBACK = ("127.0.0.0/8",)


def names(*answers):
    """Resolve every name to one list of addresses after the other; the last one stays."""
    left = list(answers)
    asked = []

    async def resolve(host, _port, _family):
        asked.append(host)
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve, asked


def to(url, host="crm.example.test", networks=LOOPBACK, **fields):
    """Return a request to a name, at the port of a server."""
    _, _, port = url.rpartition(":")
    return request_to(f"https://{host}:{port}", "/in", api="http", networks=networks, **fields)


async def refused(sender, request):
    with pytest.raises(ConfigurationInvalid) as caught:
        await sender.send(request, 5)
    return caught.value.message


async def test_a_name_that_leads_inside_is_refused_with_its_address():
    resolve, _ = names(["169.254.169.254"])
    sender = HttpSender(resolve=resolve)
    message = await refused(sender, to("https://x:443", networks=()))
    assert message == (
        "Not sent: crm.example.test leads to 169.254.169.254, a link-local address, from which"
        " clouds hand out their credentials. If that is right, the destination allows it with"
        " http.networks."
    )
    await sender.close()


async def test_a_loopback_server_gets_nothing_unless_it_is_allowed_however_it_is_spelled():
    seen = []

    async def remember(request, writer):
        seen.append(request)
        await answer(request, writer)

    async with server(remember) as url:
        sender = HttpSender()
        for host in ("127.0.0.1", "2130706433", "0x7f.1", "localhost", "127.1"):
            assert "this machine itself" in await refused(sender, to(url, host, networks=()))
        assert seen == []
        allowed = request_to(url, "/in", api="http", networks=LOOPBACK)
        assert isinstance(await sender.send(allowed, 5), Answer)
        assert len(seen) == 1
        await refused(sender, request_to(url, "/in", api="http", networks=()))
        assert len(seen) == 1
        await sender.close()


async def test_what_was_looked_at_is_what_is_connected_to():
    """A name that turns to this machine at its second look gains nothing: there is none."""
    opened = []

    async def remember(reader, _writer):
        opened.append(await reader.read(1))

    resolve, asked = names(["127.0.0.1"], ["10.0.0.5"])
    sender = HttpSender(resolve=resolve)
    async with listening(remember) as port:
        url = f"https://x:{port}"
        result = await sender.send(to(url), 5)
        # The server speaks no TLS: it is the connection that counts here.
        assert result == NoAnswer(Silence.UNREACHABLE, possibly_applied=False)
        assert asked == ["crm.example.test"]
        assert "10.0.0.5" in await refused(sender, to(url))
        assert opened == [b"\x16"]
    await sender.close()


async def test_each_connection_looks_its_name_up_and_tries_allowed_addresses_until_one_takes_it():
    async def answer_and_close(request, writer):
        await answer(request, writer)
        writer.close()

    async with server(answer_and_close) as url:
        resolve, asked = names(["10.0.0.5", "127.0.0.2", "127.0.0.1"])
        sender = HttpSender(resolve=resolve)
        request = request_to(
            url.replace("127.0.0.1", "localhost"), "/in", api="http", networks=LOOPBACK
        )
        for _ in range(3):
            assert isinstance(await sender.send(request, 5), Answer)
            await asyncio.sleep(0.02)
        assert asked == ["localhost"] * 3
        await sender.close()

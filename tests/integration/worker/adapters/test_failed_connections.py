"""Each way in which a connection fails is named, so that nobody has to guess what to mend."""

import asyncio
import contextlib
import socket
import ssl
import struct

import pytest

from segrelay.worker.adapters.sender import HttpSender
from segrelay.worker.destinations.api import NoAnswer, OutgoingRequest, Silence
from tests.tls import DAY, server_context, write_certificates

HERE = ("127.0.0.0/8",)


def to(url, folder=None, **fields):
    authority = str(folder / "authority.pem") if folder else ""
    fields = {"api": "http", "networks": HERE, "authority": authority, **fields}
    return OutgoingRequest(url, {}, {}, b"{}", **fields)


async def failure(request, resolve=None):
    """Send a request that fails, and return the message of its failure."""
    sender = HttpSender(resolve=resolve) if resolve else HttpSender()
    answer = await sender.send(request, 5)
    await sender.close()
    assert answer.kind in {Silence.UNREACHABLE, Silence.CUT}
    if resolve:
        assert answer == NoAnswer(Silence.UNREACHABLE, possibly_applied=False)
    return answer.message


@contextlib.asynccontextmanager
async def listening(behave, context=None):
    """Serve with a behaviour, and close each connection after it."""
    over = []

    async def talk(reader, writer):
        with contextlib.suppress(OSError):
            await behave(reader, writer)
        writer.close()
        over.append(writer)

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in over:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def say_nothing(_reader, _writer):
    pass


async def failure_over_tls(context, folder=None, host="127.0.0.1"):
    async with listening(say_nothing, context) as port:
        return await failure(to(f"https://{host}:{port}/x", folder))


@pytest.mark.parametrize(
    ("made", "host", "is_trusted", "why"),
    [
        ({"valid": (-2 * DAY, -DAY)}, "127.0.0.1", True, "certificate has expired"),
        ({"valid": (DAY, 2 * DAY)}, "127.0.0.1", True, "certificate is not yet valid"),
        ({}, "localhost", True, "Hostname mismatch"),
        ({"signs_itself": True}, "127.0.0.1", False, "self-signed certificate"),
    ],
)
async def test_a_certificate_that_is_refused(tmp_path, made, host, is_trusted, why):
    write_certificates(tmp_path, **made)
    context = server_context(tmp_path)

    message = await failure_over_tls(context, tmp_path if is_trusted else None, host)

    assert message == f"no answer: its certificate is refused ({why})"


async def test_a_certificate_whose_authority_is_not_trusted(tmp_path):
    write_certificates(tmp_path)

    message = await failure_over_tls(server_context(tmp_path))

    refused = "unable to get local issuer certificate"
    assert message == f"no answer: its certificate is refused ({refused})"


async def test_a_client_certificate_that_is_missing(tmp_path):
    write_certificates(tmp_path)

    context = server_context(tmp_path)
    context.load_verify_locations(tmp_path / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    # TLS 1.3 would tell only after the handshake, beside what is being written.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    message = await failure_over_tls(context, tmp_path)
    assert message.endswith("(a client certificate?)")


async def test_a_port_that_speaks_no_tls():
    async def answer(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(65_536)

    async with listening(answer) as port:
        message = await failure(to(f"https://127.0.0.1:{port}/x"))
        assert message == "no answer: it speaks no TLS at this port"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (socket.EAI_NONAME, "no answer: its name is not known (DNS)"),
        (socket.EAI_AGAIN, "no answer: its name could not be looked up (DNS does not answer)"),
    ],
)
@pytest.mark.parametrize("networks", [HERE, None])
async def test_a_name_that_does_not_resolve(number, message, networks):
    async def resolve(*_):
        raise socket.gaierror(number, "no")

    url = "https://nobody.invalid/x"
    if networks is None and number == socket.EAI_NONAME:
        # The system's own resolver; `invalid` is never a name (RFC 2606).
        assert (await failure(to(url, networks=None))).startswith("no answer: its name ")
    else:
        assert await failure(to(url), resolve) == message


@pytest.mark.parametrize("networks", [HERE, None])
async def test_a_connection_that_is_refused(networks):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    message = await failure(to(f"http://127.0.0.1:{port}/x", networks=networks))
    assert message == "no answer: connection refused"


async def reset(reader, writer):
    await reader.read(1)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def close(reader, _writer):
    await reader.read(65_536)


async def babble(reader, writer):
    await reader.read(65_536)
    writer.write(b"220 mail.example.com ready\r\n\r\n")


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (reset, "no answer: connection reset by peer"),
        (close, "no answer: the connection was closed before its end"),
        (babble, "no answer: what it answered is not HTTP"),
    ],
)
async def test_a_connection_that_ends_without_an_answer(behave, message):
    async with listening(behave) as port:
        assert await failure(to(f"http://127.0.0.1:{port}/x")) == message

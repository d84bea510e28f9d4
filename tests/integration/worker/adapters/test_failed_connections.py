"""Each way in which no connection comes about is named, so that nobody has to guess what to mend.

How one fails after that, `test_sender.py` tells.
"""

import socket
import ssl

import pytest

from segrelay.worker.adapters.sender import HttpSender, resolved_by_the_system
from segrelay.worker.destinations.api import NoAnswer, Silence
from tests.integration.worker.adapters.sending import (
    answer,
    listening,
    request_to,
    say_nothing,
    server,
)
from tests.tls import DAY, server_context, write_certificates

HERE = ("127.0.0.0/8",)


async def failure(url, folder=None, networks=HERE, resolve=resolved_by_the_system):
    """Send a request that never leaves, and return the message of its failure."""
    sender = HttpSender(resolve=resolve)
    authority = str(folder / "authority.pem") if folder else ""
    request = request_to(url, "/x", api="http", networks=networks, authority=authority)
    found = await sender.send(request, 15)
    await sender.close()
    assert found == NoAnswer(Silence.UNREACHABLE, possibly_applied=False)
    return found.message


async def failure_over_tls(context, folder=None, host="127.0.0.1"):
    async with server(say_nothing, context) as url:
        return await failure(url.replace("127.0.0.1", host), folder)


@pytest.mark.parametrize(
    ("made", "host", "is_trusted", "why"),
    [
        ({"valid": (-2 * DAY, -DAY)}, "127.0.0.1", True, "certificate has expired"),
        ({"valid": (DAY, 2 * DAY)}, "127.0.0.1", True, "certificate is not yet valid"),
        ({}, "localhost", True, "Hostname mismatch"),
        ({"signs_itself": True}, "127.0.0.1", False, "self-signed certificate"),
        ({}, "127.0.0.1", False, "unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_is_refused(tmp_path, made, host, is_trusted, why):
    write_certificates(tmp_path, **made)
    context = server_context(tmp_path)

    message = await failure_over_tls(context, tmp_path if is_trusted else None, host)

    assert message == f"no answer: its certificate is refused ({why})"


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
    async def answer_in_the_clear(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(65_536)

    async with listening(answer_in_the_clear) as port:
        message = await failure(f"https://127.0.0.1:{port}")
        assert message == "no answer: it speaks no TLS at this port"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (socket.EAI_NONAME, "its name is not known (DNS)"),
        (socket.EAI_AGAIN, "its name could not be looked up (DNS does not answer)"),
    ],
)
async def test_a_name_that_does_not_resolve(number, message):
    async def resolve(*_):
        raise socket.gaierror(number, "no")

    url = "https://nobody.invalid"
    assert await failure(url, resolve=resolve) == f"no answer: {message}"
    # The system's own resolver; `invalid` is never a name (RFC 2606).
    assert (await failure(url, networks=None)).startswith("no answer: its name ")


@pytest.mark.parametrize("networks", [HERE, None])
async def test_a_connection_that_is_refused(networks):
    async with server(answer) as url:
        pass
    assert await failure(url, networks=networks) == "no answer: connection refused"

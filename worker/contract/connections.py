"""HTTP connections: what secures them, and in words why one failed.

Every client of ours takes its TLS context from here, so that the authority of an authorization
counts wherever something is sent with it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from segrelay.worker.contract.own_processes import deferred
from segrelay.worker.errors import ConfigurationInvalid

if TYPE_CHECKING:
    import httpx
else:
    httpx = deferred("httpx")

CONNECT_SECONDS: Final = 5.0

_TLS_REASONS: Final[Mapping[str, str]] = {
    "WRONG_VERSION_NUMBER": "it speaks no TLS at this port",
    "HTTP_REQUEST": "it speaks no TLS at this port",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a client certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the TLS handshake (a client certificate?)",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection in TLS (a client certificate?)",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no version of TLS that we do",
}


@cache
def tls_context(authority: str = "") -> ssl.SSLContext:
    """Return the TLS context of connections; it takes 10 ms to make.

    Args:
        authority: The file of a private authority that is trusted too; "" = there is none.

    Raises:
        ConfigurationInvalid: The file holds no certificate.
    """
    context = httpx.create_ssl_context(trust_env=False)
    if authority:
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as error:
            raise ConfigurationInvalid(
                "Not sent: the authority of the authorization can't be used"
                f" ({getattr(error, 'reason', None) or type(error).__name__}); it has to be PEM."
            ) from None
    return context


def why_no_answer(error: Exception) -> str:
    """Return in words why a request got no answer, with no text of the request or the server.

    Args:
        error: An error of httpx, with its causes behind it.
    """
    for cause in _causes(error):
        words = _words_of(cause)
        if words:
            return words
    match error:
        case httpx.ConnectTimeout():
            return "no connection came about in time"
        case httpx.TimeoutException():
            return "nothing came in time"
        case httpx.ConnectError():
            return "no connection came about"
        case httpx.RemoteProtocolError() if "without sending" in str(error) or "closed" in str(
            error
        ):
            return "the connection was closed before its end"
        case httpx.RemoteProtocolError():
            return "what it answered is not HTTP"
        case httpx.InvalidURL():
            return "its URL can't be used"
        case _:
            return "the connection broke"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what is behind it, the outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        waiting += [one.__cause__, one.__context__]


def _words_of(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            # What follows a comma is the host.
            return f"its certificate is refused ({error.verify_message.partition(',')[0]})"
        case ssl.SSLError():
            reason = error.reason or type(error).__name__
            return _TLS_REASONS.get(reason, f"TLS failed ({reason})")
        case socket.gaierror() if error.errno == socket.EAI_AGAIN:
            return "its name could not be looked up (DNS does not answer)"
        case socket.gaierror():
            return "its name is not known (DNS)"
        case OSError():
            return os.strerror(error.errno).lower() if error.errno else ""
        case _:
            return ""

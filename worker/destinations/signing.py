"""Signatures of requests: what is signed, how, and in which headers it goes."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping

from worker.contract.settings.http import Signature


def signed(sign: Signature, body: bytes, unix_seconds: int) -> Mapping[str, str]:
    """Return the headers that sign a body.

    Args:
        sign: How; its secret is set.
        body: As it is sent.
        unix_seconds: Now.
    """
    text = signature_of(sign, sign.secret.reveal(), body, str(unix_seconds))
    value = sign.value.replace("{timestamp}", str(unix_seconds)).replace("{signature}", text)
    headers = {sign.header: value}
    return (
        headers | {sign.timestamp_header: str(unix_seconds)} if sign.timestamp_header else headers
    )


def signature_of(sign: Signature, secret: str, body: bytes, timestamp: str) -> str:
    """Return the signature of a body alone."""
    before, marker, behind = sign.of.replace("{timestamp}", timestamp).partition("{body}")
    message = before.encode() + (body if marker else b"") + behind.encode()
    digest = hmac.digest(secret.encode(), message, sign.algorithm.removeprefix("hmac-"))
    return digest.hex() if sign.encoding == "hex" else base64.b64encode(digest).decode()

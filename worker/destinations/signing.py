"""Signatures of requests: HMACs as configured, and AWS Signature Version 4."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import httpx

from segrelay.worker.contract.settings.authorizations import Authorization
from segrelay.worker.contract.settings.http import Signature


class Signed(NamedTuple):
    """A request as it is signed.

    Attributes:
        url: Absolute, as it is sent.
        body: As it is sent.
        key: The value of the idempotency header; "" = there is none.
        unix_seconds: The time of the signature.
    """

    method: str
    url: str
    body: bytes
    key: str
    unix_seconds: int

    @property
    def path(self) -> str:
        """Return the path with the query, as the request's first line has it."""
        return httpx.URL(self.url).raw_path.decode()


_PLACEHOLDER: Final = re.compile(rb"\{(timestamp|id|method|path|body)\}")


def signed(sign: Signature, request: Signed) -> Mapping[str, str]:
    """Return the headers that sign a request.

    Args:
        sign: The signature; its secret is set.
        request: The request, with the time of now.
    """
    timestamp = str(request.unix_seconds)
    parts = {
        b"timestamp": timestamp.encode(),
        b"id": request.key.encode(),
        b"method": request.method.encode(),
        b"path": request.path.encode(),
        b"body": request.body,
    }
    message = _PLACEHOLDER.sub(lambda found: parts[found[1]], sign.of.encode())
    value = sign.value.replace("{timestamp}", timestamp).replace("{signature}", sign.text(message))
    headers = {sign.header: value}
    return headers | {sign.timestamp_header: timestamp} if sign.timestamp_header else headers


_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_S3: Final = "s3"
_PORTS: Final = {"https": 443, "http": 80}


def signed_for_aws(authorization: Authorization, request: Signed) -> Mapping[str, str]:
    """Return the headers of AWS Signature Version 4.

    See "Create a signed AWS API request" in the IAM user guide.

    Args:
        authorization: Of the type `aws`; its secrets are set.
        request: The request, with the time of now.
    """
    assert authorization.access_key is not None
    assert authorization.secret_key is not None
    time = datetime.fromtimestamp(request.unix_seconds, UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(request.body).hexdigest()
    headers = {"X-Amz-Date": time}
    if authorization.service == _S3:
        headers["X-Amz-Content-Sha256"] = digest
    if authorization.session_token:
        headers["X-Amz-Security-Token"] = authorization.session_token.reveal()
    canonical = {name.lower(): text for name, text in headers.items()} | {"host": _host(request)}
    names = ";".join(sorted(canonical))
    lines = (
        request.method,
        _path(request, authorization),
        _query(request),
        *(f"{name}:{canonical[name]}" for name in sorted(canonical)),
        "",
        names,
        digest,
    )
    asked = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    steps = (time[:8], authorization.region, authorization.service, "aws4_request")
    key = b"AWS4" + authorization.secret_key.reveal().encode()
    for step in steps:
        key = hmac.digest(key, step.encode(), "sha256")
    text = "\n".join((_ALGORITHM, time, "/".join(steps), asked))
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = "/".join((authorization.access_key.reveal(), *steps))
    headers["Authorization"] = (
        f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _host(request: Signed) -> str:
    """Return the header `Host` as the sender writes it: the port only where it is not the usual."""
    parts = urlsplit(request.url)
    host = parts.netloc.rpartition("@")[2].lower()
    usual = f":{_PORTS.get(parts.scheme, 0)}"
    return host.removesuffix(usual)


def _path(request: Signed, authorization: Authorization) -> str:
    """Return the path; every service but S3 wants it encoded once more."""
    path = request.path.partition("?")[0]
    return path if authorization.service == _S3 else quote(path, safe="/-_.~")


def _query(request: Signed) -> str:
    query = request.path.partition("?")[2]
    pairs = [part.partition("=") for part in query.split("&") if part]
    encoded = [(_encoded(name), _encoded(text)) for name, _, text in pairs]
    return "&".join(f"{name}={text}" for name, text in sorted(encoded))


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="-_.~")

"""A Redis that is reached by TLS only, with certificates that are made for a test."""

import asyncio
import datetime as dt
import ipaddress
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)
HERE = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
_NO_USAGE = dict.fromkeys(
    ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
     "key_agreement", "encipher_only", "decipher_only"), False,
)  # fmt: skip
_SIGNS = x509.KeyUsage(**_NO_USAGE, key_cert_sign=True, crl_sign=True)

_CLOSE_SECONDS = 0.1
"""The loop closes what was aborted meanwhile."""


class Certificates:
    """An authority, and what it has signed; all in one folder, as files.

    Attributes:
        authority: The file with the authority's own certificate.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.authority = folder, folder / f"{name}.pem"
        self._issuer = (_named(name), ec.generate_private_key(ec.SECP256R1()))
        own = _unsigned(*self._issuer, *self._issuer, is_authority=True)
        self.authority.write_bytes(_pem(own.add_extension(_SIGNS, critical=True), self._issuer[1]))

    def signed(
        self,
        name: str,
        valid_for: x509.GeneralName = HERE,
        *,
        valid: tuple[dt.timedelta, dt.timedelta] = (-DAY, DAY),
        signs_itself: bool = False,
    ) -> tuple[Path, Path]:
        """Return the files of a certificate and of its key.

        Args:
            valid: The begin and the end of its validity, from now.
        """
        own = (_named(name), ec.generate_private_key(ec.SECP256R1()))
        issuer = own if signs_itself else self._issuer
        made = _unsigned(*own, *issuer, is_authority=False, valid_for=valid_for, valid=valid)
        key = own[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        for path, text in zip(files, (_pem(made, issuer[1]), key), strict=True):
            path.write_bytes(text)
        return files


def write_certificates(folder: Path, **server: Any) -> None:
    """Write `authority.pem`, `server.pem` and `server.key`; `server` is as `signed` takes it."""
    Certificates(folder).signed("server", **server)


def server_context(folder: Path) -> ssl.SSLContext:
    """Return what secures a server by the certificate in a folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _unsigned(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
    valid_for: x509.GeneralName = HERE,
    valid: tuple[dt.timedelta, dt.timedelta] = (-DAY, DAY),
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        issuer,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        now + valid[0],
        now + valid[1],
    )
    for extension, is_critical in (
        (x509.SubjectAlternativeName([valid_for]), False),
        (x509.BasicConstraints(ca=is_authority, path_length=None), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical=is_critical)
    return builder


def _pem(certificate: x509.CertificateBuilder, issuer_key: ec.EllipticCurvePrivateKey) -> bytes:
    signed = certificate.sign(issuer_key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


@dataclass(slots=True)
class TlsRelay:
    """Takes TLS connections of those who have a certificate, and relays them to a plain Redis.

    The embedded server is built without TLS.

    Args:
        port: Of the plain Redis on this machine.
        certificate: Files of the relay's certificate and key.
        authority: That has to have signed the clients' certificates.
    """

    port: int
    certificate: tuple[Path, Path]
    authority: Path
    listens_at: int = 0
    taken: int = 0
    _ready: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread = field(init=False)
    _over: asyncio.Event = field(init=False)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(60)
        self._loop.close()

    async def _serve(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate)
        context.load_verify_locations(self.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=context)
        self.listens_at = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(_CLOSE_SECONDS)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await asyncio.gather(_pass(reader, back), _pass(there, writer))
        finally:
            for one in (writer, back):
                one.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while some := await reader.read(65_536):
            writer.write(some)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass  # whoever is behind it sees that it was cut
    finally:
        writer.close()

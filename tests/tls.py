"""A Redis that is reached by TLS only, with certificates that are made for a test."""

import asyncio
import shutil
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

_CLOSE_SECONDS = 0.1
"""The loop closes what was aborted meanwhile."""


@dataclass(slots=True)
class Certificates:
    """An authority, and what it has signed; all in one folder, as files."""

    folder: Path
    name: str = "authority"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _openssl("req", "-x509", *_KEY, "-days", "1", "-subj", f"/CN={self.name}",
                 "-keyout", self._key(self.name), "-out", self.authority)  # fmt: skip

    @property
    def authority(self) -> Path:
        """The file with the authority's own certificate."""
        return self.folder / f"{self.name}.pem"

    def signed(self, name: str, valid_for: str) -> tuple[Path, Path]:
        """Return the files of a certificate and its key.

        Args:
            valid_for: As OpenSSL writes it, e.g. `IP:127.0.0.1`.
        """
        request, extension = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        certificate = self.folder / f"{name}.pem"
        extension.write_text(f"subjectAltName={valid_for}\n")
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", self._key(name), "-out", request)
        _openssl("x509", "-req", "-days", "1", "-in", request, "-extfile", extension,
                 "-CA", self.authority, "-CAkey", self._key(self.name), "-CAcreateserial",
                 "-out", certificate)  # fmt: skip
        return certificate, self._key(name)

    def _key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


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
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
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


def _openssl(*words: object) -> None:
    binary = shutil.which("openssl")
    assert binary, "openssl is missing"
    subprocess.run([binary, *map(str, words)], check=True, capture_output=True)

"""Stand-ins on loopback for the storage of Google Cloud and of Azure, as far as files need it."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import fsspec
import pytest

BUCKET = "exports"
ACCOUNT = "acme"
SECRET = base64.b64encode(b"canary-of-a-secret").decode()


@dataclass(frozen=True)
class Blob:
    content: bytes
    etag: str
    changed: datetime


@dataclass
class Cloud:
    """A cloud with one bucket.

    Args:
        scheme: Of its URLs: `gs` or `az`.
        ranges: The ranges that were read.
    """

    scheme: str
    blobs: dict[str, Blob] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    _number: int = 0

    def put(self, name: str, content: bytes) -> None:
        """Put an object there, or replace one."""
        self._number += 1
        self.blobs[name] = Blob(content, f"0x{self._number:016X}", datetime.now(UTC))

    def contents(self) -> dict[str, bytes]:
        """Return the contents of all objects."""
        return {name: blob.content for name, blob in self.blobs.items()}

    def remove(self, name: str) -> None:
        """Remove an object."""
        del self.blobs[name]

    def url(self, name: str) -> str:
        """Return the URL of an object, or of all below a prefix."""
        return f"{self.scheme}://{BUCKET}/{name}"


class Handler(BaseHTTPRequestHandler):
    """Answers for both; the kinds differ in paths and forms."""

    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: found[0] for name, found in parse_qs(parts.query).items()}
        steps = [unquote(step) for step in parts.path.strip("/").split("/")]
        if self.cloud.scheme == "gs":
            return self._google(steps, query)
        return self._azure(steps[1:], query)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Take a small object of Google's: `upload/storage/v1/b/BUCKET/o`."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path, _, query = self.path.partition("?")
        if path != f"/upload/storage/v1/b/{BUCKET}/o":
            return self._answer(404, b"{}")
        _, described, content = content.split(b"\n\n", 2)
        name = json.loads(described.partition(b"\n--==0==")[0])["name"]
        content = content.removesuffix(b"\n--==0==--")
        if "ifGenerationMatch=0" in query and name in self.cloud.blobs:
            return self._answer(412, b"{}")
        self.cloud.put(name, content)
        return self._json(_google_info(name, self.cloud.blobs[name]))

    def do_PUT(self) -> None:
        """Take a small object of Azure's: `ACCOUNT/CONTAINER/NAME`."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        _, container, name = unquote(urlsplit(self.path).path).strip("/").split("/", 2)
        if container != BUCKET:
            return self._answer(404, b"", **{"x-ms-error-code": "ContainerNotFound"})
        if self.headers.get("If-None-Match") == "*" and name in self.cloud.blobs:
            return self._answer(409, b"", **{"x-ms-error-code": "BlobAlreadyExists"})
        self.cloud.put(name, content)
        return self._answer(201, b"", ETag='"0x1"', **_modified(datetime.now(UTC)))

    def _google(self, steps: list[str], query: dict[str, str]) -> None:
        """Answer `storage/v1/b/BUCKET`, `…/o`, `…/o/NAME` and `download/storage/v1/…/o/NAME`."""
        downloads = steps[0] == "download"
        bucket, *rest = steps[4:] if downloads else steps[3:]
        if bucket != BUCKET:
            return self._answer(404, b"{}")
        match rest:
            case []:
                return self._json({"name": BUCKET})
            case ["o"]:
                prefix = query.get("prefix", "")
                names, folders = self._below(prefix, query.get("delimiter", ""))
                items = [_google_info(name, self.cloud.blobs[name]) for name in names]
                return self._json({"items": items, "prefixes": folders})
            case ["o", name]:
                blob = self.cloud.blobs.get(name)
                if blob is None:
                    return self._answer(404, b"{}")
                if downloads or query.get("alt") == "media":
                    return self._range(blob, self.headers.get("Range", ""))
                return self._json(_google_info(name, blob))
        return self._answer(404, b"{}")

    def _azure(self, steps: list[str], query: dict[str, str]) -> None:
        """Answer `CONTAINER?comp=list`, `CONTAINER` and `CONTAINER/NAME`, below the account."""
        container, *rest = steps
        name = "/".join(rest)
        if container != BUCKET:
            return self._answer(404, b"", **{"x-ms-error-code": "ContainerNotFound"})
        if query.get("comp") == "list":
            names, folders = self._below(query.get("prefix", ""), query.get("delimiter", ""))
            listed = "".join(_azure_info(one, self.cloud.blobs[one]) for one in names)
            listed += "".join(f"<BlobPrefix><Name>{escape(f)}</Name></BlobPrefix>" for f in folders)
            named = f'<EnumerationResults ContainerName="{BUCKET}">'
            text = f"{named}<Blobs>{listed}</Blobs><NextMarker/></EnumerationResults>"
            return self._answer(200, text.encode(), **{"Content-Type": "application/xml"})
        blob = self.cloud.blobs.get(name)
        if name and blob is None:
            return self._answer(404, b"", **{"x-ms-error-code": "BlobNotFound"})
        if blob is None:
            return self._answer(200, b"", ETag='"0x1"', **_modified(datetime.now(UTC)))
        wanted = self.headers.get("x-ms-range") or self.headers.get("Range", "")
        return self._range(blob, wanted if self.command == "GET" else "")

    def _below(self, prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
        """Return the names below a prefix, and the folders in which the others lie."""
        found = [name for name in sorted(self.cloud.blobs) if name.startswith(prefix)]
        if not delimiter:
            return found, []
        names = [name for name in found if delimiter not in name[len(prefix) :]]
        folders = {
            prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter
            for name in found
            if name not in names
        }
        return names, sorted(folders)

    def _range(self, blob: Blob, wanted: str) -> None:
        told = {"ETag": f'"{blob.etag}"', "x-ms-blob-type": "BlockBlob", **_modified(blob.changed)}
        size = len(blob.content)
        if not wanted:
            return self._answer(200, blob.content, **told)
        self.cloud.ranges.append(wanted)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or size), size - 1)
        told["Content-Range"] = f"bytes {begin}-{end}/{size}"
        return self._answer(206, blob.content[begin : end + 1], **told)

    def _json(self, document: Any) -> None:
        self._answer(200, json.dumps(document).encode(), **{"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _google_info(name: str, blob: Blob) -> dict[str, Any]:
    return {
        "name": name, "bucket": BUCKET, "size": str(len(blob.content)), "etag": blob.etag,
        "updated": blob.changed.isoformat().replace("+00:00", "Z"),
    }  # fmt: skip


def _azure_info(name: str, blob: Blob) -> str:
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties>"
        f"<Last-Modified>{format_datetime(blob.changed, usegmt=True)}</Last-Modified>"
        f"<Etag>{blob.etag}</Etag><Content-Length>{len(blob.content)}</Content-Length>"
        "<BlobType>BlockBlob</BlobType></Properties></Blob>"
    )


def _modified(at: datetime) -> dict[str, str]:
    return {"Last-Modified": format_datetime(at, usegmt=True)}


@contextmanager
def cloud(scheme: str, environment: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Start a cloud with an empty bucket; the environment leads to it."""
    stored = Cloud(scheme)
    handler = type("Handler", (Handler,), {"cloud": stored})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    url = f"http://127.0.0.1:{server.server_port}"
    environment.setenv("STORAGE_EMULATOR_HOST", url)
    environment.setenv(
        "AZURE_STORAGE_CONNECTION_STRING",
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={SECRET};"
        f"BlobEndpoint={url}/{ACCOUNT};",
    )
    # Else it looks for credentials on the network, to ask what kind of bucket it is.
    environment.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    fsspec.get_filesystem_class(scheme).clear_instance_cache()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield stored
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

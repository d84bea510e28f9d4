"""A server that speaks S3 on loopback, and a small web server with ranges or without."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

BUCKET = "exports"
MODIFIED = "Fri, 20 Nov 2026 06:00:00 GMT"


@contextmanager
def s3_bucket(environment: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a server with an empty bucket, and yield its client; the environment leads to it."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        environment.delenv(name, raising=False)
    environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    environment.setenv("AWS_ACCESS_KEY_ID", "test")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-a-secret")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
    S3FileSystem.clear_instance_cache()
    try:
        with closing(boto3.client("s3")) as client:
            client.create_bucket(Bucket=BUCKET)
            yield client
            for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
                client.delete_object(Bucket=BUCKET, Key=one["Key"])
            client.delete_bucket(Bucket=BUCKET)
    finally:
        server.stop()


class Web:
    """Files on a web server.

    Args:
        has_ranges: Whether it gives ranges, and tells an ETag.
    """

    def __init__(self, has_ranges: bool) -> None:
        self.has_ranges = has_ranges
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures = 0
        self.url = ""


@contextmanager
def web_server(*, has_ranges: bool) -> Iterator[Web]:
    web = Web(has_ranges)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            web.requests.append(wanted)
            content = web.files.get(self.path)
            if web.failures:
                web.failures -= 1
                return self._answer(503, b"")
            if content is None:
                return self._answer(404, b"")
            if not web.has_ranges:
                return self._answer(200, content)
            tag = {"ETag": f'"{hash(content)}"', "Last-Modified": MODIFIED}
            if not wanted:
                return self._answer(200, content, **tag)
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1]
            end = int(first) + len(part) - 1
            told = {"Content-Range": f"bytes {first}-{end}/{len(content)}"}
            return self._answer(206, part, **tag, **told)

        def _answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A server that speaks S3 on loopback."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

BUCKET = "exports"


@contextmanager
def s3_bucket(environment: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a server with an empty bucket, and yield its client; the environment leads to it."""
    # Each process that collects this file would load them, for a second.
    import boto3  # noqa: PLC0415
    from moto.server import ThreadedMotoServer  # noqa: PLC0415
    from s3fs import S3FileSystem  # noqa: PLC0415

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
    finally:
        httpx.post(f"http://{host}:{port}/moto-api/reset", timeout=60)
        server.stop()


@dataclass(frozen=True)
class S3Bucket:
    """An empty bucket of S3, used as a `Cloud` is."""

    client: Any

    def put(self, name: str, content: bytes) -> None:
        """Put an object there, or replace one."""
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def contents(self) -> dict[str, bytes]:
        """Return the contents of all objects."""
        names = [one["Key"] for one in self.client.list_objects_v2(Bucket=BUCKET)["Contents"]]
        found = {name: self.client.get_object(Bucket=BUCKET, Key=name) for name in names}
        return {name: one["Body"].read() for name, one in found.items()}

    def remove(self, name: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=BUCKET, Key=name)

    def url(self, name: str) -> str:
        """Return the URL of an object, or of all below a prefix."""
        return f"s3://{BUCKET}/{name}"

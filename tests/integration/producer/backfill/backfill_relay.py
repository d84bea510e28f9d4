"""A configuration on a Redis, and `segrelay backfill` as a process."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson

from segrelay.ops import embedded
from segrelay.ops.run.up import own_command
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from tests.configuration import credentials, insider, settings_in, trigger
from tests.integration.producer.redis_contents import Entry, entries
from tests.warm import WarmProcess, run

PARTITIONS = 4
AS_OF = ("--audience", "vip", "--as-of", "2026-11-20T06:00:00Z")
NAMED = ("--job", "j", *AS_OF)


class Relay:
    """A configuration on a Redis.

    Args:
        redis: The URL of the Redis; "embedded" = one of its own.
    """

    def __init__(self, folder: Path, redis: str, *more: str) -> None:
        self.folder = folder
        tables = (credentials(), insider(authorization="insider"), trigger("vip-enter"), *more)
        self.settings = settings_in(folder, *tables, redis=redis, partitions=PARTITIONS)
        self.config = self.settings.source
        self._redis = redis
        self.environment = {**os.environ, "SEGRELAY_CONFIG": str(self.config)}
        self.data_dir = folder / ".segrelay"

    def people(self, count: int, *, pad: int = 500) -> Path:
        """Write a file with so many people, whose rows have so many bytes."""
        path = self.folder / "people.ndjson"
        path.write_bytes(b"\n".join(rows(count, pad=pad)) + b"\n")
        return path

    def limit(self, high_water: int) -> None:
        """Let readers wait for room where so many deliveries of backfills wait."""
        limited = f"[redis]\nhigh_water = {high_water}\n"
        text = re.sub(r"\[redis\]\n(high_water = .*\n)?", limited, self.config.read_text())
        self.config.write_text(text)

    def lapse(self) -> None:
        """Let the claim of a reader that was killed lapse, as it does after 20 s."""
        with self.connected() as client:
            client.hdel(keys.job("j"), "lock", "until")

    @contextmanager
    def connected(self) -> Iterator[Redis]:
        is_own = self._redis == "embedded"
        url = embedded.ensure_running(self.data_dir).url if is_own else self._redis
        with closing(connect(url)) as client:
            yield client

    def run(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return run(own_command("backfill", *arguments), given, env=self.environment)

    def start(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, stderr: int = subprocess.DEVNULL
    ) -> WarmProcess:
        return WarmProcess(
            own_command("backfill", *arguments),
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )

    def document(self, *arguments: str, given: bytes = b"") -> Any:
        ran = self.run(*arguments, "--json", given=given)
        assert ran.returncode == 0, ran.stderr.decode()
        return orjson.loads(ran.stdout)

    def published(self, job: str) -> list[str]:
        """Return the emails of everything that waits of a job."""
        return [entry.profile["email"] for entry in self._waiting(job)]

    def times(self, job: str) -> dict[str, str]:
        """Return the time of each event that waits of a job, by the person's email."""
        profiles = [entry.profile for entry in self._waiting(job)]
        return {each["email"]: each["segment_events"][0]["enter"] for each in profiles}

    def drained(self, job: str) -> int:
        """Take what waits of a job away, as if it were delivered; returns how much that was."""
        name = f"job.{job}|vip-enter"
        with self.connected() as client:
            pipe = client.pipeline(transaction=False)
            for number in range(PARTITIONS):
                stream = PartitionKeys("insider", number).stream(name)
                pipe.xlen(stream)
                pipe.unlink(stream)
            return sum(pipe.execute()[::2])

    def _waiting(self, job: str) -> list[Entry]:
        with self.connected() as client:
            found = entries(client, partitions=PARTITIONS)
        return [entry for entry in found if entry.lane == f"job.{job}"]


def rows(count: int, *, pad: int = 0) -> list[bytes]:
    filling = "x" * pad
    return [orjson.dumps({"email": f"p{n}@example.com", "pad": filling}) for n in range(count)]

"""A watch of a folder on a real Redis, whose steps a test does."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from segrelay.ops.backfill.watching import JOBS_KEPT, watching_for
from segrelay.producer.backfill.jobs import JobStore, read_watch
from segrelay.producer.backfill.reading import read_job
from segrelay.worker.contract import keys
from segrelay.worker.errors import SegrelayError
from tests.configuration import table
from tests.integration.producer.backfill.backfill_relay import Relay


class Watched:
    """A watch of a folder, whose jobs are read within its steps."""

    def __init__(self, folder, redis_url, client):
        self.folder, self.redis_url, self.client = folder, redis_url, client
        self.incoming = folder / "incoming"
        self.incoming.mkdir()
        self.reads = True
        self.jobs_kept = JOBS_KEPT
        self.configure()

    def configure(self, *tables, **options):
        wanted = {
            "source": "incoming/", "audience": "vip", "as_of": "file", "settle": "0s", **options,
        }  # fmt: skip
        watch = table("backfill.watch.drop", **wanted)
        self.relay = Relay(self.folder, self.redis_url, watch, *tables)
        self.settings = self.relay.settings

    def put(self, name, *people, content=None):
        """Put a file there as a whole, as somebody does who renames it at the end."""
        rows = b"email\n" + b"".join(b"%s@example.com\n" % person.encode() for person in people)
        path = self.incoming / name
        part = self.incoming / f"{name}.part"
        part.write_bytes(rows if content is None else content)
        part.rename(path)
        return path

    def put_unread(self, name, *people, steps=1):
        """Put a file there, of which the steps make a job that is not read meanwhile."""
        self.put(name, *people)
        self.reads = False
        for _ in range(steps):
            self.step()
        self.reads = True

    def watching(self, client=None):
        client = client or self.client
        found = watching_for(client, self.settings, "drop")

        def read(job):
            if self.reads:
                store = JobStore(client)
                with suppress(SegrelayError):
                    read_job(store, store.named(job), self.settings, lambda *_: None)
            return lambda: False  # it is over

        return replace(found, start_reader=read, jobs_kept=self.jobs_kept, monotonic=lambda: 0.0)

    def step(self, client=None, **options):
        """Do a step, whenever it is due."""
        with suppress(SegrelayError):
            (client or self.client).hset(keys.watch("drop"), "next", 0)
            state = self.state()
            if state.next_ms or state.start_at_ms:
                due = replace(state, next_ms=0, start_at_ms=0)
                self.client.hset(keys.watch("drop"), "state", due.dumps())
        return self.watching(client).step(**options)

    def state(self):
        return read_watch(self.client, "drop")

    def jobs(self):
        """Return the files of the jobs with their phases, in the order in which they were begun."""
        return [(Path(job.spec.sources[0]).name, job.phase) for job in self.found_jobs()]

    def found_jobs(self):
        store = JobStore(self.client)
        return sorted(store.found(store.names()).values(), key=lambda job: job.spec.started_at)

    def job(self, file):
        """Return the newest job of a file."""
        return next(
            job for job in reversed(self.found_jobs()) if job.spec.sources[0].endswith(file)
        )

    def published(self):
        """Return the names of everybody whose delivery waits, of all jobs."""
        emails = [e for job in self.found_jobs() for e in self.relay.published(job.spec.name)]
        return sorted(email.partition("@")[0] for email in emails)

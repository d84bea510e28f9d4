"""A small segrelay that drains when a test says so."""

from datetime import UTC, datetime, timedelta

import orjson

from segrelay.ops.state.partitions import KINDS
from segrelay.ops.status.command import read_status
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.sync.step import syncing_for
from segrelay.producer.wakeups import SilentWaker
from segrelay.templates import SHIPPED_FOLDER
from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.node.loading import load
from segrelay.worker.node.runtime import Runtime
from tests.configuration import (
    DELETE,
    configuration,
    credentials,
    insider,
    lytics,
    table,
    trigger,
)
from tests.waiting import until

ENTER = trigger("vip-enter", audiences=["*"], template="enter.jsonnet")
EXIT = trigger("vip-exit", audiences=["*"], on="exit", template="exit.jsonnet", url=DELETE)
READS_ID = """local event = import "lytemplates.libsonnet";
{users: [{identifiers: {email: event.get("email")},
  attributes: {custom: {id: event.get("segment_events")[0].id}}}]}
"""
LYTICS = lytics("{url}") + table("sync.vip", audience="vip", every="1h")
BEGUN_AT = datetime.now(UTC) - timedelta(hours=1)


def payload(email, audience="vip", direction="enter", minute=0, **fields):
    at = (BEGUN_AT + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")
    entry = {"id": audience * 3, "slug": audience, "event": direction, direction: at}
    return {"data": {"email": email, "segment_events": [entry], **fields}, "meta": {}, "id": "1"}


_LOADED = {}
"""What was loaded, by the texts that it was loaded from: it takes longer than to drain."""


def started(settings):
    """Return the runtime of a process that begins now."""
    templates = sorted(settings.templates_folder.rglob("*"))
    texts = tuple((path.name, path.read_text()) for path in templates if path.is_file())
    key = (settings.source.read_text(), texts)
    if key not in _LOADED:
        _LOADED[key] = load(settings, lambda question: question())
    runtime = Runtime(settings, _LOADED[key])
    runtime.is_worker = False  # this process does more than to drain: its garbage is much
    return runtime


def assert_sum(found):
    for each in (found, *found["triggers"].values(), *found["jobs"].values()):
        assert each["accepted"] == sum(each[kind] for kind in KINDS[1:])


class Relay:
    """What a test drives: publishes, drains, and calls commands."""

    def __init__(self, folder, redis_url, sandbox_url, client):
        self._folder = folder
        self._urls = {"redis": redis_url, "sandbox": sandbox_url}
        self.client = client
        self._runtime = None
        (folder / "templates").mkdir()
        for name in ("enter.jsonnet", "exit.jsonnet"):
            self.template(name, self.shipped(name))
        self.configure(EXIT)

    @staticmethod
    def shipped(name):
        return (SHIPPED_FOLDER / "insider" / name).read_text()

    def template(self, name, text):
        (self._folder / "templates" / name).write_text(text)
        self.close()

    def configure(self, more="", *, late='late = "1s"', triggers=ENTER):
        sandbox = insider(base_url=self._urls["sandbox"], authorization="insider")
        tables = (f"[delivery]\n{late}\n", credentials(), sandbox, triggers, more)
        text = configuration(*tables, redis=self._urls["redis"], partitions=4)
        path = self._folder / "segrelay.toml"
        path.write_text(text)
        self.settings = load_settings(path, environ={})
        self.close()

    def reload(self):
        """Read the configuration again, after a test has changed its file."""
        self.settings = load_settings(self.settings.source, environ={})
        self.close()

    def change(self, *pairs):
        """Change texts in the configuration, and read it again."""
        text = self.settings.source.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        self.settings.source.write_text(text)
        self.reload()

    def publish(self, *payloads, **options):
        texts = [orjson.dumps(one) for one in payloads]
        return self._publisher().publish(texts, PublishOptions(**options))

    def _publisher(self):
        return Publisher(self.client, self.settings, waker=SilentWaker())

    def sync(self):
        """Do a whole run of the sync `vip`."""
        syncing = syncing_for(self.client, self.settings, "vip", self._publisher())
        while syncing.step(forced=True).more:
            pass

    def deliver(self, *payloads, **options):
        """Publish, and drain all there is."""
        self.publish(*payloads, **options)
        self.drain()

    def drain(self):
        """Drain all there is, in a process of this configuration and these templates.

        A partition that holds anything is drained twice: what a drain of another one brought is
        delivered, too. A drain whose slice ends before its work does is woken again.
        """
        self._runtime = self._runtime or started(self.settings)
        for partition in self.partitions() * 2:
            wakes = self.client.scard(partition.streams)
            while wakes:
                _, wakes = self._runtime.drain("insider", partition.number, Stop())

    def drain_all(self):
        """Drain until nothing waits."""
        until(lambda: (self.drain(), not self.status()["waiting"])[1], 20)

    def close(self):
        """End what drains; the next drain begins anew."""
        if self._runtime:
            self._runtime.close()
        self._runtime = None

    def streams(self):
        """Return the names of all streams that are not empty."""
        return {
            name.decode()
            for partition in self.partitions()
            for name in self.client.smembers(partition.streams)
        }

    def partitions(self):
        count = self.settings.redis.partitions
        return [PartitionKeys("insider", number) for number in range(count)]

    def _stored(self):
        """Yield the keys of all streams that are not empty."""
        for partition in self.partitions():
            for name in self.client.smembers(partition.streams):
                yield partition.stream(name.decode())

    def spoil_profiles(self):
        """Let what waits lack its end, so that it is no JSON, or can't be unsealed."""
        for stream in self._stored():
            for entry_id, fields in self.client.xrange(stream):
                self.client.xdel(stream, entry_id)
                self.client.xadd(stream, fields | {b"p": fields[b"p"][:-3]})

    def entries(self):
        """Return the fields of all that waits."""
        return [fields for one in self._stored() for _, fields in self.client.xrange(one)]

    def status(self):
        found = read_status(self.client, self.settings)
        assert_sum(found)
        return found

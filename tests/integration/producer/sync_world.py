"""Lytics, Redis and Insider with a sync between them; a test says when a step is done."""

import os
import time
from dataclasses import replace

import orjson

from segrelay import templates
from segrelay.producer.events.payloads import format_time
from segrelay.producer.publish import Publisher
from segrelay.producer.sync.step import syncing_for
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.ledger import Item, Record, pack, unpack
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.words import Direction
from tests.configuration import DELETE, configuration, credentials, insider, lytics, table, trigger
from tests.integration.producer.redis_contents import entries

ENTERS = "insider/enter.jsonnet"
AUDIENCE, TRIGGERS = 1, {Direction.ENTER: 2, Direction.EXIT: 3}
CHANGE = trigger("changed", on="change", template=ENTERS, export_fields=["first_name"])


def destination(name, url):
    """Return a destination, and a trigger for those who enter and for those who leave."""
    exits = "insider/exit.jsonnet"
    return "".join(
        [
            insider(name, base_url=url, authorization="insider"),
            trigger(f"{name}-enter", destination=name, template=ENTERS),
            trigger(f"{name}-exit", destination=name, on="exit", template=exits, url=DELETE),
        ]
    )


def person(number, *audiences, **fields):
    return {
        "_uid": f"u{number:05}",
        "email": f"p{number}@example.com",
        "segments": list(audiences),
        **fields,
    }


def emails(numbers):
    return {f"p{n}@example.com" for n in numbers}


class World:
    """What a test drives and looks at."""

    def __init__(self, folder, redis_url, sandbox, client):
        self._folder = folder
        self._redis_url = redis_url
        self.sandbox = sandbox
        self.client = client
        self.configure()

    def configure(self, *tables, destinations=("insider",), **sync):
        url = self.sandbox.url
        tables = (
            credentials(),
            lytics(url),
            table("sync.vip", **{"audience": "vip", "every": "15m", **sync}),
            *(destination(name, url) for name in destinations),
            *tables,
        )
        text = configuration(*tables, redis=self._redis_url, partitions=4)
        path = self._folder / "segrelay.toml"
        path.write_text(f'templates = "{templates.__path__[0]}"\n' + text)
        self.settings = load_settings(path, environ={})
        self.publisher = Publisher(self.client, self.settings, waker=SilentWaker())

    def people(self, *rows):
        self.sandbox.post("lytics/profiles", list(rows))

    def members(self, count, *others):
        """Let a first run tell of so many members, whose entrances do not wait any more."""
        self.people(*(person(n, "vip") for n in range(count)), *others)
        run = self.run()
        self.clear()
        return run

    def move(self, number, change):
        self.moves(change, [number])

    def moves(self, change, numbers):
        moves = [{"uid": f"u{n:05}", "audience": "vip", "change": change} for n in numbers]
        self.sandbox.post("lytics/moves", moves)

    def switch(self, **switches):
        self.sandbox.settings(lytics=switches)

    def syncing(self, *, repair_every_seconds=86_400.0, **options):
        syncing = syncing_for(self.client, self.settings, "vip", self.publisher)
        often = {"repair_every_seconds": repair_every_seconds}
        schedule = syncing.schedule.model_copy(update=often)
        return replace(syncing, schedule=schedule, **options)

    def run(self, *, small_steps=False, **options):
        """Do the steps of a run to its end; returns what it came to."""
        syncing = self.syncing(sleep=lambda _: None, **options)
        forced = True
        for _ in range(1_000):
            step = syncing.step(forced=forced, is_over=lambda: small_steps)
            assert step.taken, step.line
            forced = False
            if not (step.more or step.wait_seconds):
                return syncing.store.peek()
            self._forget_the_wait(syncing)
        raise AssertionError("the run does not end")

    def _forget_the_wait(self, syncing):
        run = syncing.store.peek()
        assert syncing.store.take()
        run.next_ms = 0
        syncing.store.save(run, ends=True)

    def deliveries(self):
        """Return direction and email of all that waits, sorted."""
        return sorted((one.header.direction, one.profile["email"]) for one in self.waiting())

    def inside(self):
        """Return who is in the audience by the newest event of each; of equal times the exit's."""
        newest = {}
        for header, profile in ((one.header, one.profile) for one in self.waiting()):
            event = (header.time_us, header.direction is Direction.EXIT)
            newest[profile["email"]] = max(newest.get(profile["email"], event), event)
        return {email for email, (_, has_left) in newest.items() if not has_left}

    def known(self):
        """Return whom the sync knows as a member."""
        store = self.syncing().store
        return {
            key.removeprefix("email:")
            for partition in self.partitions()
            for key, _ in store.members(partition)
        }

    def lapse(self):
        """Let the lock of a step that stands still end, as it does after 20 s."""
        if self.client.hexists("{sync:vip}", "lock"):
            self.client.hset("{sync:vip}", "until", 1)

    def waiting(self):
        names, partitions = self.settings.destinations, self.settings.redis.partitions
        return [one for name in names for one in entries(self.client, name, partitions)]

    def partitions(self, destination="insider"):
        return self.syncing().store.partitions([destination])

    def clear(self):
        """Take away what waits."""
        for destination in self.settings.destinations:
            for partition in self.partitions(destination):
                for name in self.client.smembers(partition.streams):
                    self.client.delete(partition.stream(name.decode()))
                self.client.delete(partition.streams)


def aged(path, minutes):
    """Let a file have been written so many minutes ago."""
    at = time.time() - 60 * minutes
    os.utime(path, (at, at))
    return path


def standing_still(world, change_is_due, meanwhile):
    """Return a publisher that others overtake when it is about to write such a change."""

    class StandingPublisher(Publisher):
        def publish_members(self, destination, changes, *rest):
            if any(map(change_is_due, changes)):
                meanwhile()
            return super().publish_members(destination, changes, *rest)

    return StandingPublisher(world.client, world.settings, waker=SilentWaker())


def partition_of(world, key, destination="insider"):
    return PartitionKeys(destination, keys.partition_of(key, world.settings.redis.partitions))


def deliver(world, direction, numbers, at_us, destination="insider"):
    """Write into the ledger that something was delivered."""
    world.client.hset(keys.NAMES, "a|vip", AUDIENCE)
    for number in numbers:
        key = f"email:p{number}@example.com"
        partition = partition_of(world, key, destination)
        item = {(AUDIENCE, TRIGGERS[direction]): Item(direction, at_us)}
        known = world.client.get(partition.ledger(digest_of(key)))
        record = dict(unpack(known).items) | item
        world.client.set(partition.ledger(digest_of(key)), pack(Record(at_us, record)))


def enter_by_webhook(world, numbers, at_us):
    """Let the webhook tell of entrances, which are delivered."""
    entry = {"slug": "vip", "event": "enter", "enter": format_time(at_us)}
    rows = [{"email": f"p{n}@example.com", "segment_events": [entry]} for n in numbers]
    world.publisher.publish(map(orjson.dumps, rows))
    deliver(world, Direction.ENTER, numbers, at_us)
    world.clear()

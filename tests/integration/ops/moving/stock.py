"""Something of each kind in the partitions that are to be moved, and what moves and drains it."""

from contextlib import closing

import orjson

from segrelay.ops.moving.renumbering import Renumbering
from segrelay.ops.status.totals import KINDS
from segrelay.worker.batch.partition import IntendedDelivery, Intent
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.people import Forward, Moving
from segrelay.worker.contract.protection import PROTECTION, RESPONSES
from segrelay.worker.contract.redis.claim import learn_numbering
from segrelay.worker.contract.words import Direction
from tests.integration.ops.relay import payload, started
from tests.members import set_marks


def stock(relay, people):
    """Deliver exits, let older enters and others wait, and bury one; `before` keeps the status."""
    relay.publish(
        *(payload(f"p{n}@example.com", direction="exit", minute=9) for n in range(people))
    )
    relay.drain()
    relay.publish(payload("dead@example.com"), job="load")
    relay.spoil_profiles()
    relay.drain()
    relay.publish(*(payload(f"p{n}@example.com", minute=1) for n in range(people)))
    relay.publish(payload("new@example.com", minute=2), job="load")
    relay.before = relay.status()


def key_of(email):
    return f"email:{email}"


def drain(relay, destination="insider"):
    """Drain all there is, in a new process that learns the number of partitions."""
    learn_numbering(relay.client, relay.settings)
    numbers = relay.settings.redis.numbering.numbers
    with closing(started(relay.settings)) as runtime:
        for number in (*numbers, *numbers):
            if relay.client.scard(relay.settings.redis.ids.partition(destination, number).streams):
                runtime.drain(destination, number, Stop())


def change(client, relay, count):
    return Renumbering(client, relay.settings, count).run()


def lapse(relay):
    """Let go of the new partitions: what a killed command leaves behind lapses."""
    stored = Numbering.loads(relay.client.get(keys.PARTITIONS))
    for number in stored.following.numbers if stored.target else stored.numbers:
        relay.client.delete(PartitionKeys("insider", number).lease)


def six(found):
    return {kind: found[kind] for kind in KINDS}


def enrich(relay, people):
    """Add all that partitions hold besides."""
    client, settings = relay.client, relay.settings
    addresses = [f"p{n}@example.com" for n in range(people)]
    for person in addresses:
        digest = digest_of(key_of(person))
        partition = PartitionKeys("insider", settings.redis.numbering.of(key_of(person)))
        forward = Forward(Moving.DONE, key_of("new@example.com"), 2, 5)
        client.hset(partition.forwards, digest.hex(), forward.dumps())
        client.hset(partition.forwards, f"{digest.hex()}|vip", b"mark")
        set_marks(client, partition, "vip", {key_of(person): "1 x"})
        client.hset(partition.who, digest.hex(), PROTECTION.seal(b"{}", digest.hex().encode()))
        client.zadd(partition.reached, {digest.hex(): 0})
        client.xadd(partition.history, {"e": orjson.dumps([1, digest.hex(), "a", "t", "enter", 1])})
        for intent_id, end in ((f"open{partition.number}", 7), (f"lost{partition.number}", 0)):
            known = client.hget(partition.intents, intent_id)
            rows = Intent.loads(intent_id, known, 0).deliveries if known else ()
            row = IntendedDelivery("live|vip-enter|1-1", digest, "vip", Direction.ENTER, 5, 0)
            client.hset(partition.intents, intent_id, Intent(intent_id, (*rows, row)).dumps())
            if end:
                client.hset(partition.open, intent_id, end)
    for number, partition in enumerate(relay.partitions()):
        for name in sorted(client.smembers(partition.streams)):
            stream = name.decode()
            ((first, _), *_) = client.xrange(partition.stream(stream))
            client.hset(partition.aside, f"{stream}|{first.decode()}", "[1, 1, 0, 0, 0]")
        client.hset(partition.retry, "vip-enter", "[1, 0, 0]")
        client.hset(
            partition.jobs, mapping={"load": f"{6 + number // 2}", "load|chunk": f"{number}"}
        )
        client.hset(partition.jobs, "load|epoch", f"{8 + number}")
        client.hset(f"{partition.jobs}:source", mapping={"load": "9", "load|chunk": f"{number},9"})
        client.expire(f"{partition.jobs}:source", 10_000)
        client.xadd(partition.responses, {"r": PROTECTION.seal(b"[]", RESPONSES)})
        client.incrby(partition.responseslost, 3)
        client.hset(partition.rendering, "x", "y") if number > 9 else client.set(
            partition.rendering, "[]"
        )

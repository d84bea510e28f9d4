"""Something of each kind in the partitions that are to be moved, and what moves and drains it."""

from contextlib import closing

from segrelay.ops.status.totals import KINDS
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract.keys import PartitionKeys
from tests.integration.ops.relay import payload, started


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
    """Drain all there is, in a new process."""
    numbers = range(relay.settings.redis.partitions)
    with closing(started(relay.settings)) as runtime:
        for number in (*numbers, *numbers):
            if relay.client.scard(PartitionKeys(destination, number).streams):
                runtime.drain(destination, number, Stop())


def six(found):
    return {kind: found[kind] for kind in KINDS}

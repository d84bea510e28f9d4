"""Something of each kind in the partitions of a relay."""

from tests.integration.ops.relay import payload


def stock(relay, people):
    """Deliver exits, let older enters and others wait, and bury one; `before` keeps the status."""
    relay.deliver(
        *(payload(f"p{n}@example.com", direction="exit", minute=9) for n in range(people))
    )
    relay.publish(payload("dead@example.com"), job="load")
    relay.spoil_profiles()
    relay.drain()
    relay.publish(*(payload(f"p{n}@example.com", minute=1) for n in range(people)))
    relay.publish(payload("new@example.com", minute=2), job="load")
    relay.before = relay.status()

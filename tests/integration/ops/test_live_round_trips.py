"""A live event's booking and its intent go to Redis together."""

from segrelay.worker.adapters.redis.scripts import source
from segrelay.worker.contract.redis.scripts import digest
from tests.integration.ops.relay import payload

BOOK, INTENT = (digest(source(name)) for name in ("gate_book", "intent"))


def connections(client, work):
    """Return the port of the connection over which each script was called while it worked.

    A renewal of the lease, which is an intent's script with one key, counts as none.
    """
    found = {}
    with client.monitor() as monitor:
        work()
        client.echo("the end")
        for heard in monitor.listen():
            words = heard["command"].split()
            if words[0].upper() == "ECHO":
                return found
            if words[0].upper() == "EVALSHA" and words[1:3] != [INTENT, "1"]:
                found.setdefault(words[1], []).append(heard["client_port"])
    raise AssertionError("the monitor ended")


def test_booking_and_intent_of_a_live_event_share_a_round_trip(relay):
    relay.deliver(payload("ann@example.com"))
    relay.publish(payload("eve@example.com", phone="+4915112345678", visit_country="DE"))

    found = connections(relay.client, relay.drain)

    assert len(found[BOOK]) == len(found[INTENT]) == 1
    assert found[BOOK] == found[INTENT]

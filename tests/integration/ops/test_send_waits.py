"""`segrelay send --wait` tells what came of its own deliveries, beside those of others."""

import threading
import time

import orjson
import pytest

from segrelay.worker.adapters.redis.survey import RedisPresence
from tests.integration.ops.relay import payload
from tests.waiting import allowed, until


@pytest.mark.parametrize(
    ("options", "more", "dies", "told", "code"),
    [
        ((), [], 0, "settled 3 of 3: 3 delivered\n", 0),
        (("--json",), [], 0, '"delivered": 3,', 0),
        ((), [7], 0, "settled 3 of 3: 3 delivered\n", 1),
        ((), [], 1, "1 dead: refused\n→ segrelay dlq show insider.", 1),
    ],
)
def test_waiting_says_what_came_of_what_was_sent_and_not_of_the_others(  # noqa: PLR0917
    relay, sandbox, call, tmp_path, options, more, dies, told, code
):
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.publish(*(payload(f"p{n}@example.com", minute=1) for n in range(3)))
    sent = [payload(f"q{n}@example.com", status="poisoned" * (n < dies)) for n in range(3)]
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(map(orjson.dumps, [*sent, *more])))
    RedisPresence(relay.client, relay.settings.fingerprint, clock=time.monotonic).announce()

    def all_have_ended():
        relay.drain()
        return relay.status()["delivered"] == 6 - dies

    worker = threading.Thread(target=until, args=(all_have_ended,))
    worker.start()
    result = call("send", file, "--wait", "--timeout", f"{allowed(20):.0f}", *options)
    worker.join()

    assert told in result.stdout
    assert result.exit_code == code

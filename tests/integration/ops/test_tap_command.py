"""`segrelay tap`: the ends of deliveries as they come, from the outcome log."""

import subprocess
from itertools import count
from select import select

import orjson
import pytest

from segrelay.ops.outcomes import LogFollower, TapOptions
from segrelay.ops.run.up import own_command
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.errors import UsageWrong
from tests.integration.ops.relay import payload
from tests.waiting import allowed, until
from tests.warm import WarmProcess

ANN = digest_of("email:ann@example.com").hex()
HOSTILE = "vip\x1b[31m\u202e"


def deliver(relay, sandbox):
    """Let deliveries end as delivered, skipped and dead."""
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.publish(payload("ann@example.com", minute=5))
    relay.deliver(payload("ben@example.com", status="poisoned"))
    relay.deliver(payload("ann@example.com", minute=1))


FILTERS = [
    ({"person": "ann@example.com"}, ["delivered", "skipped"]),
    ({"person": ANN}, ["delivered", "skipped"]),
    ({"outcome": "dead"}, ["dead"]),
    ({"trigger": "vip-enter", "text": "SUPERSEDED"}, ["skipped"]),
    ({"audience": "gold"}, []),
    ({"destination": "insider", "audience": "vip"}, ["dead", "delivered", "skipped"]),
]


def test_each_end_is_seen_once_in_its_order_and_filters_narrow_each_other(relay, sandbox):
    log = LogFollower(relay.client, relay.settings)
    assert log.look() == []
    relay.deliver(payload("cid@example.com"))
    assert [row.outcome for row in log.look()] == ["delivered"]

    deliver(relay, sandbox)

    rows = log.look()
    assert sorted(row.outcome for row in rows[:2]) == ["dead", "delivered"]
    assert (rows[2].outcome, rows[2].reason, rows[2].person) == ("skipped", "superseded", ANN)
    assert rows == sorted(rows, key=lambda row: row.time_ms)
    assert log.look() == []
    for wanted, outcomes in FILTERS:
        chosen = TapOptions(**wanted).chosen(relay.settings)
        assert sorted(row.outcome for row in rows if chosen.wants(row)) == outcomes, wanted


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_hostile_names_are_shown_as_text(relay, options):
    command = own_command("--config", str(relay.settings.source), "tap", "--for", "5m", *options)
    with WarmProcess(command, stdout=subprocess.PIPE) as child:
        minutes = count()

        def is_shown():
            """Let a delivery end, until the command follows the log."""
            relay.deliver(payload("ann@example.com", HOSTILE, minute=next(minutes)))
            return select([child.stdout], [], [], 0.5)[0]

        until(is_shown)
        shown = child.stdout.readline()
        child.kill()

    assert b"\x1b" not in shown
    assert "\u202e".encode() not in shown
    if options:
        assert orjson.loads(shown)["audience"] == HOSTILE
    else:
        assert b"\\x1b[31m\\u202e" in shown


def test_it_ends_by_itself_and_with_a_reader_that_goes_away(relay):
    command = own_command("--config", str(relay.settings.source), "tap", "--for")
    with WarmProcess([*command, "1s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        _, told = child.communicate(timeout=allowed(30))
    assert (child.returncode, told) == (0, b"0 rows shown.\n")

    with WarmProcess([*command, "5m"], stdout=subprocess.PIPE) as child:
        child.stdout.close()
        minutes = count()

        def has_ended():
            relay.deliver(payload("ann@example.com", minute=next(minutes)))
            return child.poll() is not None

        until(has_ended)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--for", "2h"), "write up to 1h"),
        (("--outcome", "lost"), "write one of"),
        (("--trigger", "nobody"), "no trigger nobody"),
    ],
)
def test_an_option_that_means_nothing_is_refused(call, arguments, message):
    with pytest.raises(UsageWrong, match=message):
        call("tap", *arguments)

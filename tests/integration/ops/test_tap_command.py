"""`segrelay tap` beside drains: what it shows, what it hides, and what it leaves behind."""

import signal
import subprocess
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.ops.run.up import own_command
from segrelay.producer.publish import Publisher
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.taps import LAPSE_MS, MOST_WATCHES, TapWatch, offer_records
from segrelay.worker.contract.taps import TapFilter, TapKind, TapOffer
from segrelay.worker.errors import UsageWrong
from tests.integration.ops.relay import payload
from tests.waiting import allowed, until
from tests.warm import WarmProcess

ANN = digest_of("email:ann@example.com")
HOSTILE = "vip\x1b[31m\u202e"


@pytest.fixture
def begin(relay):
    """Begin a watch with a filter, which lapses in a while."""

    def begin(**wanted):
        begun = TapWatch(relay.client, TapFilter(**wanted))
        begun.look()
        return begun

    return begin


class Reader:
    """Reads a watch in a thread, so that it does not lapse however slow the machine is."""

    def __init__(self, client, wanted):
        self.watch = TapWatch(client, wanted)
        self.watch_id = self.watch.watch_id
        self.records, self.left_out = [], 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self.look()
        self._thread = threading.Thread(target=self._renew)
        self._thread.start()

    def look(self):
        """Read on; returns all that has come until now."""
        with self._lock:
            found = self.watch.look()
            self.records += found.records
            self.left_out = found.left_out
        return self

    def _renew(self):
        while not self._ended.wait(0.5):
            self.look()

    def end(self):
        self._ended.set()
        self._thread.join()


@pytest.fixture
def watch(redis_url):
    """Begin a watch with a filter, before anything goes through, and keep it."""
    with ExitStack() as stack:

        def begin(**wanted):
            reader = Reader(stack.enter_context(closing(connect(redis_url))), TapFilter(**wanted))
            stack.callback(reader.end)
            return reader

        yield begin


@contextmanager
def running(relay, *arguments):
    """Run the command as a process, and wait until it watches."""
    command = own_command("--config", str(relay.settings.source), "tap", *arguments)
    with WarmProcess(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        until(lambda: relay.client.exists(keys.TAPS))
        yield child
        with suppress(ProcessLookupError):  # it may have ended by itself
            child.kill()


def kinds(records):
    return [record["kind"] for record in records]


def left_behind(relay):
    return list(relay.client.scan_iter(f"{keys.TAPS}*"))


def test_a_delivery_is_seen_at_all_its_stations(relay, watch):
    ours = watch()

    relay.publish(payload("ann@example.com", first_name="Ann"))
    relay.drain()

    found = ours.look()
    assert kinds(found.records) == list(TapKind)
    assert found.left_out == 0
    event, render, request, answer, outcome = found.records
    for record in found.records:
        assert record["destination"] == "insider"
        assert (record["trigger"], record["audience"]) == ("vip-enter", "vip")
        assert (record["direction"], record["person"]) == ("enter", ANN.hex())
    assert event["content"]["segment_events"][0]["slug"] == "vip"
    assert (render["template"], len(render["template_version"])) == ("enter.jsonnet", 12)
    assert request["url"].endswith("/api/user/v1/upsert")
    assert (request["deliveries"], request["users"]) == (1, 1)
    assert (answer["status"], answer["verdict"]) == (200, "Accepted")
    assert (outcome["outcome"], outcome["reason"]) == ("delivered", None)
    assert (outcome["status"], outcome["attempts"]) == (200, 1)
    assert outcome["template_version"] == render["template_version"]


def test_nothing_personal_leaves_the_process_unless_it_is_revealed(relay, watch, sandbox):
    masked, revealed = watch(), watch(reveal=True)
    sandbox.settings(poison="poisoned", poison_status=200)

    relay.publish(
        payload("ann@example.com", first_name="Ann"), payload("ben@example.com", status="poisoned")
    )
    relay.drain()

    (stored,) = [relay.client.xrange(keys.tap(masked.watch_id))]
    assert len(stored) >= 2 * len(TapKind) - 2
    assert b"example.com" not in b"".join(fields[b"r"] for _, fields in stored)
    assert b"Ann" not in b"".join(fields[b"r"] for _, fields in stored)
    bodies = {r["kind"]: orjson.dumps(r.get("content")) for r in revealed.look().records}
    assert b"example.com" in bodies["event"]
    assert b"example.com" in bodies["render"]
    assert b"example.com" in bodies["request"]


def test_skips_deaths_and_tries_are_outcomes_too(relay, watch, sandbox):
    ours = watch(kind="outcome")
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.publish(payload("ann@example.com"))
    relay.drain()
    relay.publish(payload("ann@example.com"), payload("ben@example.com", status="poisoned"))
    relay.drain()
    sandbox.settings(error_shares={"503": 1.0})
    relay.publish(payload("cleo@example.com"))
    relay.drain()

    found = [(r["outcome"], r["reason"], r["status"]) for r in ours.look().records]

    assert ("skipped", "duplicate", None) in found
    assert ("dead", "refused", 200) in found
    assert ("retry", None, None) in found


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({"people": frozenset([ANN])}, list(TapKind)),
        ({"trigger": "vip-exit"}, list(TapKind)),
        ({"audience": "gold"}, list(TapKind)),
        ({"destination": "other"}, []),
        ({"kind": "answer"}, ["answer"] * 2),
        ({"outcome": "delivered"}, ["outcome"] * 3),
        ({"outcome": "dead"}, []),
        ({"containing": "attribute/delete"}, ["request"]),
    ],
    ids=str,
)
def test_each_filter_chooses_in_the_process(relay, watch, wanted, shown):
    ours = watch(**wanted)

    relay.publish(
        payload("ann@example.com", audience="silver"),
        payload("ben@example.com", audience="gold"),
        payload("cleo@example.com", audience="silver", direction="exit"),
    )
    relay.drain()

    found = kinds(ours.look().records)
    # Whether people share a request depends on their partitions.
    assert sorted(set(found)) == sorted(set(shown))
    if "people" in wanted or "trigger" in wanted:
        assert found == shown


def test_what_is_beyond_the_budget_is_counted(relay, watch):
    ours = watch(kind="outcome")

    relay.publish(*(payload(f"p{n}@example.com") for n in range(600)))
    relay.drain()

    found = ours.look()
    assert 0 < len(found.records) < 600
    assert len(found.records) + found.left_out == 600


def test_a_profile_that_no_record_can_hold_is_accepted_all_the_same(relay, watch):
    """JSON has a limit of nesting, and a record holds the profile one level deeper."""
    watch()
    whole = orjson.dumps(payload("ann@example.com", deep="nested"))
    deep = b"[" * 253 + b"]" * 253

    with closing(connect(relay.settings.redis.url)) as client:
        Publisher(client, relay.settings).publish([whole.replace(b'"nested"', deep)])

    assert relay.status()["accepted"] == 1


def test_a_watch_that_nobody_renews_leaves_nothing(relay, begin):
    gone = begin()
    relay.publish(payload("ann@example.com"))
    relay.drain()
    assert relay.client.xlen(keys.tap(gone.watch_id)) == len(TapKind)
    assert relay.client.pttl(keys.TAPS) <= LAPSE_MS
    assert relay.client.pttl(keys.tap(gone.watch_id)) <= LAPSE_MS

    # As time does.
    relay.client.hset(keys.TAPS, f"{gone.watch_id}|until", 1)
    relay.client.unlink(keys.tap(gone.watch_id))
    relay.publish(payload("ben@example.com"))
    relay.drain()
    other = begin()

    assert relay.client.exists(keys.tap(gone.watch_id)) == 0
    assert not [name for name in relay.client.hkeys(keys.TAPS) if gone.watch_id.encode() in name]
    other.end()
    assert left_behind(relay) == []
    assert gone.look().is_new
    gone.end()


def test_a_watch_that_ends_later_than_it_can_have_begun_has_lapsed(relay, begin):
    ours = begin()
    relay.client.hset(keys.TAPS, f"{ours.watch_id}|until", 99_999_999_999_999)

    assert not offer_records(relay.client, [TapOffer(ours.watch_id, [b"{}"], 0)])
    assert ours.look().records == []


def test_too_many_watches_are_refused(begin):
    begun = [begin() for _ in range(MOST_WATCHES)]

    with pytest.raises(UsageWrong, match="8 people watch already"):
        begin()

    begun[0].end()
    begin()


def test_a_reader_that_is_stopped_or_killed_slows_nothing_and_leaves_nothing(relay):
    with running(relay, "--for", "2m") as killed, running(relay, "--json", "--for", "2m") as child:
        until(lambda: relay.client.hlen(keys.TAPS) >= 4)
        relay.publish(payload("ann@example.com"))
        relay.drain()
        for _ in TapKind:
            assert orjson.loads(child.stdout.readline())["person"] == ANN.hex()
        child.send_signal(signal.SIGSTOP)
        killed.kill()

        until(lambda: left_behind(relay) == [], LAPSE_MS / 1_000 + 5)
        relay.publish(*(payload(f"p{n}@example.com") for n in range(100)))
        relay.drain()
        assert left_behind(relay) == []
        assert relay.status()["delivered"] == 101

        child.send_signal(signal.SIGCONT)
        until(lambda: relay.client.exists(keys.TAPS))
        relay.publish(payload("ben@example.com"))
        relay.drain()
        more = [orjson.loads(child.stdout.readline()) for _ in TapKind]
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=allowed(30))

    assert {record["person"] for record in more} == {digest_of("email:ben@example.com").hex()}
    assert b"is missing, and not counted" in told
    assert child.returncode == 0


def test_it_ends_by_itself_and_cleanly_with_ctrl_c(relay):
    with running(relay, "--for", "1s") as child:
        _, told = child.communicate(timeout=allowed(30))
    assert (child.returncode, told) == (0, b"0 records shown, 0 left out.\n")

    with running(relay) as child:
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=allowed(30))
    assert (child.returncode, told) == (0, b"0 records shown, 0 left out.\n")
    assert left_behind(relay) == []


def test_a_reader_that_goes_away_ends_it(relay):
    with running(relay, "--json") as child:
        child.stdout.close()
        relay.publish(payload("ann@example.com"))
        until(lambda: child.poll() is not None)

    assert left_behind(relay) == []


def test_hostile_names_are_shown_as_text(relay):
    long = ("--for", "5m")
    with running(relay, *long) as text, running(relay, *long, "--json") as json:
        until(lambda: relay.client.hlen(keys.TAPS) >= 4)
        relay.publish(payload("ann@example.com", audience=HOSTILE))
        relay.drain()
        lines = [[child.stdout.readline() for _ in TapKind] for child in (text, json)]

    for said in map(b"".join, lines):
        assert b"\x1b" not in said
        assert "\u202e".encode() not in said
    assert all(b"\\x1b[31m\\u202e" in line for line in lines[0])
    assert {orjson.loads(line)["audience"] for line in lines[1]} == {HOSTILE}


def test_revealing_is_in_the_audit_and_names_nobody(relay, call):
    call(app, "tap", "--for", "10ms")
    call(
        app, "tap", "--for", "10ms", "--reveal", "--person", "ann@example.com",
        "--reason", "ticket 7",
    )  # fmt: skip

    (act,) = [act for act in read_acts(relay.client) if act.what == "tap"]
    assert (act.reason, act.arguments["reveal"]) == ("ticket 7", "yes")
    assert "ann" not in str(act)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--for", "2h"], "write up to 1h"),
        (["--for", "soon"], "is not a duration"),
        (["--for", "0s"], "write up to 1h"),
        (["--what", "letters"], "write one of event, render"),
        (["--outcome", "fine"], "write one of delivered"),
        (["--trigger", "vip-entr"], "no trigger vip-entr"),
        (["--destination", "insidr"], "no destination insidr"),
        (["--person", " "], "can't be anybody's identity"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(call, arguments, message):
    with pytest.raises(UsageWrong, match=message):
        call(app, "tap", *arguments)


def test_time_passes_by_what_it_is_told(call):
    begun = time.monotonic()
    call(app, "tap", "--for", "10ms", "--json")

    assert time.monotonic() - begun < allowed(5)

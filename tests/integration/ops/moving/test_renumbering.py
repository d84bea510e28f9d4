"""`segrelay redis partitions N`: everything that is kept by partition goes to new ones."""

import itertools
from contextlib import suppress

import orjson
import pytest

from ops.main import app
from ops.moving.held import HeldLease
from ops.moving.renaming import Renaming
from ops.moving.renumbering import Renumbering
from ops.state.partitions import all_partitions
from ops.status.totals import KINDS
from producer.doorbell import SilentDoorbell
from producer.publish import Publisher
from producer.publishing.options import PublishOptions
from producer.sync.book import SyncBook
from tests.configuration import trigger
from tests.integration.ops.moving.stock import stock
from tests.integration.ops.moving.test_renaming import (
    MOST_TRIPS,
    DyingRedis,
    Killed,
    StalledRedis,
    everything,
    rename,
    restore,
)
from tests.integration.ops.relay import ENTER, payload
from tests.nightly import amount
from worker.batch.partition import Note, NotedDelivery
from worker.batch.sending.interrupt_watch import Stop
from worker.contract import keys
from worker.contract.keys import PartitionKeys, digest_of
from worker.contract.numbering import Numbering
from worker.contract.people.forwards import Forward, Moving
from worker.contract.redis.claim import claim, learn_numbering
from worker.contract.redis.replicas import SingleClient
from worker.contract.settings import load_settings
from worker.contract.words import Direction
from worker.errors import (
    NotReplicated,
    OperationsMustAct,
    PartitionsChange,
    RedisMismatch,
    UsageWrong,
)
from worker.node.process.runtime import runtime_for

PEOPLE = 12
EVERY_TRIP = amount(9, nightly=1)
EVERY_TRIP_OF_RENAMING = amount(23, nightly=1)
ELSEWHERE = trigger("vip-other", destination="other", audiences=["*"], template="enter.jsonnet")
PROFILES = amount(50_000, nightly=1_000_000)


def key_of(email):
    return f"email:{email}"


@pytest.fixture
def used(relay):
    """Exits were delivered, older enters and others wait, and some lie dead."""
    stock(relay, PEOPLE)
    relay.close()
    return relay


def drain(relay, name="insider"):
    runtime = runtime_for(relay.settings)
    learn_numbering(relay.client, relay.settings)
    try:
        for number in itertools.chain(*[relay.settings.redis.numbering.numbers] * 2):
            runtime.drain(name, number, Stop())
    finally:
        runtime.close()


def change(client, relay, count):
    return Renumbering(client, relay.settings, count).run()


def six(found):
    return {kind: found[kind] for kind in KINDS}


def run(call, count, *options):
    return orjson.loads(
        call(app, "redis", "partitions", str(count), "--yes", "--json", *options).stdout
    )


def lapse(relay):
    """Let go of the new partitions: what a killed command leaves behind lapses."""
    stored = Numbering.loads(relay.client.get(keys.PARTITIONS))
    for number in stored.following.numbers if stored.target else stored.numbers:
        relay.client.delete(PartitionKeys("insider", number).lease)


@pytest.mark.parametrize("counts", [(3,), (1,), (7, 2), (4,)])
def test_older_enters_do_not_pass_exits_that_were_delivered_before(used, call, counts):
    for count in counts:
        done = run(call, count)

    assert (done["to"], done["profiles"], done["deliveries"], done["letters"]) == (
        (counts[-1], PEOPLE, PEOPLE + 1, 1) if counts != (4,) else (4, 0, 0, 0)
    )
    assert six(used.status()) == six(used.before)
    drain(used)
    found = used.status()
    assert found["skipped_by_reason"] == {"superseded": PEOPLE}
    assert (found["delivered"], found["waiting"]) == (PEOPLE + 1, 0)
    assert (found["jobs"]["load"]["delivered"], found["jobs"]["load"]["dead"]) == (1, 1)
    if counts != (4,):
        assert not [key for key in used.client.keys("{insider:[0-3]}*") if b"lease" not in key]


def test_a_letter_is_found_under_its_former_id_and_replayed(used, call):
    (letter,) = orjson.loads(call(app, "dlq", "list", "--json").stdout)
    file = str(used.settings.source.parent / "letters")
    call(app, "dlq", "export", file)
    run(call, 3)

    shown = orjson.loads(call(app, "dlq", "show", letter["id"], "--json").stdout)
    assert shown["id"] != letter["id"]
    assert run(call, 3)["letters"] == 0

    assert orjson.loads(call(app, "dlq", "import", file, "--json").stdout) == {
        "lines": 1, "added": 0, "problems": []
    }  # fmt: skip


def enrich(relay):
    """Add all that partitions hold besides."""
    client, settings = relay.client, relay.settings
    people = [f"p{n}@example.com" for n in range(PEOPLE)]
    for person in people:
        digest = digest_of(key_of(person))
        place = PartitionKeys("insider", settings.redis.numbering.of(key_of(person)))
        forward = Forward(Moving.DONE, key_of("new@example.com"), 2, 5)
        client.hset(place.forwards, digest.hex(), forward.dumps())
        client.hset(place.forwards, f"{digest.hex()}|vip", b"mark")
        client.hset(place.members("vip"), key_of(person), "1 x")
        client.hset(place.who, digest.hex(), "{}")
        client.zadd(place.reached, {digest.hex(): 0})
        client.xadd(place.history, {"e": orjson.dumps([1, digest.hex(), "a", "t", "enter", 1])})
        for note_id, end in ((f"open{place.partition}", 7), (f"lost{place.partition}", 0)):
            known = client.hget(place.notes, note_id)
            rows = Note.loads(note_id, known, 0).deliveries if known else ()
            row = NotedDelivery("live|vip-enter|1-1", digest, "vip", Direction.ENTER, 5, 0)
            client.hset(place.notes, note_id, Note(note_id, (*rows, row)).dumps())
            if end:
                client.hset(place.open, note_id, end)
    for number, place in enumerate(relay.places()):
        for name in sorted(client.smembers(place.streams)):
            stream = name.decode()
            ((first, _), *_) = client.xrange(place.stream(stream))
            client.hset(place.aside, f"{stream}|{first.decode()}", "[1, 1, 0, 0, 0]")
        client.hset(place.retry, "vip-enter", "[1, 0, 0]")
        client.hset(place.jobs, mapping={"load": f"{6 + number // 2}", "load|chunk": f"{number}"})
        client.hset(place.jobs, "load|epoch", f"{8 + number}")
        client.hset(f"{place.jobs}:source", mapping={"load": "9", "load|chunk": f"{number},9"})
        client.expire(f"{place.jobs}:source", 10_000)
        client.xadd(place.responses, {"r": "[]"})
        client.incrby(place.responseslost, 3)
        client.hset(place.rendering, "x", "y") if number > 9 else client.set(place.rendering, "[]")


def test_everything_goes_where_it_belongs(used):
    enrich(used)
    client = used.client

    change(client, used, 3)

    numbering = learn_numbering(client, used.settings)
    assert numbering == Numbering((4, 3))
    for person in (f"p{n}@example.com" for n in range(PEOPLE)):
        digest, key = digest_of(key_of(person)), key_of(person)
        place = PartitionKeys("insider", numbering.of(key))
        assert place.partition in numbering.numbers
        assert client.get(place.ledger(digest))
        forward = Forward.loads(client.hget(place.forwards, digest.hex()))
        assert forward.partition == numbering.of(key_of("new@example.com"))
        assert client.hget(place.forwards, f"{digest.hex()}|vip") == b"mark"
        assert client.hget(place.members("vip"), key) == b"1 x"
        assert client.hexists(place.who, digest.hex())
        assert client.zscore(place.reached, digest.hex()) == 0
        noted = [
            note_id[:4]
            for note_id, text in client.hgetall(place.notes).items()
            if digest in {row.digest for row in Note.loads("", text, 0).deliveries}
        ]
        assert sorted(noted) == [b"lost", b"open"]
        assert set(client.hgetall(place.open).values()) == {b"7"}
        assert set(client.hgetall(place.open)) < set(client.hgetall(place.notes))
        lines = [orjson.loads(fields[b"e"]) for _, fields in client.xrange(place.history)]
        assert digest.hex() in {line[1] for line in lines}
    places = [PartitionKeys("insider", number) for number in numbering.numbers]
    for place in places:
        assert client.hgetall(place.jobs) == {
            b"load": b"7", b"load|chunk": b"2,3", b"load|epoch": b"11"
        }  # fmt: skip
        assert client.hget(f"{place.jobs}:source", "load|chunk") == b"0,1,2,3,9"
        assert 9_000 < client.ttl(f"{place.jobs}:source") <= 10_000
        assert client.hgetall(place.retry) == {b"vip-enter": b"[1, 0, 0]"}
        digests = [
            row.digest
            for note_id, text in client.hgetall(place.notes).items()
            for row in Note.loads(note_id.decode(), text, 0).deliveries
        ]
        assert {numbering.of_digest(digest) for digest in digests} <= {place.partition}
    assert sum(client.xlen(place.responses) for place in places) == 4
    assert sum(int(client.get(place.responseslost) or 0) for place in places) == 12
    assert sum(client.hlen(place.aside) for place in places) > 0


def test_deliveries_keep_their_order_and_their_times(relay):
    for n in range(40):
        relay.publish(payload(f"p{n % 7}@example.com", minute=n))
    before = sorted(
        (tuple(map(int, entry_id.split(b"-"))), fields[b"h"])
        for place in relay.places()
        for name in relay.client.smembers(place.streams)
        for entry_id, fields in relay.client.xrange(place.stream(name.decode()))
    )

    change(relay.client, relay, 1)

    (place,) = all_partitions(relay.client, relay.settings)
    rows = relay.client.xrange(place.stream("live|vip-enter"))
    assert [fields[b"h"] for _, fields in rows] == [header for _, header in before]
    times = [int(entry_id.split(b"-")[0]) for entry_id, _ in rows]
    assert times == [entry_id[0] for entry_id, _ in before]


def test_a_change_that_is_killed_anywhere_is_ended_by_the_next(used, redis_url):
    client = used.client
    enrich(used)
    dumps = {name: client.dump(name) for name in client.keys("*")}
    dying = DyingRedis.from_url(redis_url)
    change(dying, used, 3)
    wanted = everything(client)
    assert not client.keys("*carried*")
    restore(client, dumps)
    dying.left = MOST_TRIPS  # all scripts are known now
    change(dying, used, 3)
    trips = MOST_TRIPS - dying.left
    assert trips > 100

    for number in range(1, trips, EVERY_TRIP):
        restore(client, dumps)
        dying.left, dying.only_then = number, number % 2 == 0
        with pytest.raises(Killed):
            change(dying, used, 3)
        found = used.status()
        assert found["accepted"] == sum(found[kind] for kind in KINDS[1:]), number
        lapse(used)
        change(client, used, 3)

        assert everything(client) == wanted, number
    dying.close()


def test_a_change_that_stands_still_while_another_ends_it_changes_nothing(used, redis_url):
    client = used.client
    dumps = {name: client.dump(name) for name in client.keys("*")}
    counting = DyingRedis.from_url(redis_url)
    change(counting, used, 3)
    trips = MOST_TRIPS - counting.left
    stalled = StalledRedis.from_url(redis_url)

    def another_ends_it():
        lapse(used)
        change(client, used, 3)
        drain(used)

    stalled.meanwhile = another_ends_it
    for number in range(8, trips, max(1, trips // amount(5, nightly=60))):
        restore(client, dumps)
        stalled.left = number
        try:
            change(stalled, used, 3)
        except OperationsMustAct:
            lapse(used)
            change(client, used, 3)
        drain(used)

        found = used.status()
        assert (found["skipped_by_reason"], found["waiting"]) == ({"superseded": PEOPLE}, 0), number
        assert found["delivered"] == PEOPLE + 1, number


def test_who_still_knows_the_former_number_is_refused_and_goes_on(used):
    client, settings = used.client, used.settings
    publisher = Publisher(client, settings, doorbell=SilentDoorbell())
    publisher.publish([orjson.dumps(payload("early@example.com"))], PublishOptions())
    member = SyncBook(client, "vip", settings.redis.numbering)
    assert member.take()
    member.claim(["insider"])
    stale = load_settings(settings.source, environ={})
    Renumbering(client, stale, 3).run()
    assert settings.redis.numbering == Numbering((4,))

    with pytest.raises(PartitionsChange):
        member.claim(["insider"])
    with pytest.raises(PartitionsChange):
        publisher.publish([orjson.dumps(payload("late@example.com"))], PublishOptions())
    publisher.publish([orjson.dumps(payload("late@example.com"))], PublishOptions())

    drain(used)
    found = used.status()
    assert (found["waiting"], found["delivered"]) == (0, PEOPLE + 3)
    assert not [key for key in client.keys("{insider:[0-3]}*") if b"lease" not in key]


def test_a_block_of_a_job_that_was_drafted_before_is_placed_anew_and_once(relay):
    publisher = Publisher(relay.client, relay.settings, doorbell=SilentDoorbell())
    rows = [payload(f"p{n}@example.com") for n in range(40)]
    options = PublishOptions(job="load").resolved()
    texts = [orjson.dumps(row) for row in rows]
    draft = publisher._drafter.draft(texts, options)
    half = draft.deliveries.copy()
    draft.deliveries = dict(list(half.items())[:2])
    publisher.write_draft(draft, position=1, source="file")
    draft.deliveries = half
    Renumbering(relay.client, load_settings(relay.settings.source, environ={}), 7).run()

    with pytest.raises(PartitionsChange):
        publisher.write_draft(draft, position=1, source="file")
    published = publisher.write_draft(draft, position=1, source="file")

    assert 0 < published.repeated < 40
    assert relay.status()["accepted"] == 40


def test_a_drain_of_a_former_partition_is_nothing_and_of_an_unknown_one_an_error(used):
    runtime = runtime_for(used.settings)
    Renumbering(used.client, load_settings(used.settings.source, environ={}), 3).run()

    assert runtime.drain("insider", 2, Stop())[0].ended == "held by another worker"
    runtime.drain("insider", 5, Stop())
    tally, queue = runtime.drain("insider", 2, Stop())

    assert (tally.ended, queue) == ("the number of partitions has changed", "")
    with pytest.raises(UsageWrong, match="from 4 to 6"):
        runtime.drain("insider", 7, Stop())
    runtime.close()


def test_nothing_is_changed_while_a_worker_goes_on_draining(used):
    lease = HeldLease(used.client, PartitionKeys("insider", 1), "worker:7 x", length_ms=600_000)
    lease.hold()
    renumbering = Renumbering(used.client, used.settings, 3, patience_seconds=0.2)

    with pytest.raises(OperationsMustAct, match="worker:7 goes on working on partition 1"):
        renumbering.run()
    lease.let_go()

    with pytest.raises(OperationsMustAct, match="partitions 3"):
        change(used.client, used, 5)
    assert change(used.client, used, 3).deliveries == PEOPLE + 1


def carry_on(used, counts):
    """Change the number of partitions, end the renaming, and drain under the new name."""
    client, settings = used.client, used.settings
    for name in ("insider", "insider-eu"):
        for number in learn_numbering(client, settings).numbers:
            client.delete(PartitionKeys(name, number).lease)
    for count in counts:
        change(client, used, count)
    Renaming(client, settings, "insider", "insider-eu").run()
    drain(used, "insider-eu")


def test_a_broken_renaming_of_a_destination_does_not_keep_the_number_from_changing(used, redis_url):
    rename(used)
    client, settings = used.client, used.settings
    dumps = {name: client.dump(name) for name in client.keys("*")}
    dying = DyingRedis.from_url(redis_url)
    for _ in range(2):  # all scripts are known then
        restore(client, dumps)
        dying.left = MOST_TRIPS
        Renaming(dying, settings, "insider", "insider-eu").run()
    trips = MOST_TRIPS - dying.left

    for number in range(1, trips, EVERY_TRIP_OF_RENAMING):
        restore(client, dumps)
        dying.left, dying.only_then = number, number % 2 == 0
        with pytest.raises(Killed):
            Renaming(dying, settings, "insider", "insider-eu").run()
        carry_on(used, (3,))

        found = used.status()
        assert (found["skipped_by_reason"], found["waiting"]) == ({"superseded": PEOPLE}, 0), number
        assert (found["delivered"], found["dead"]) == (PEOPLE + 1, 1), number
        assert found["accepted"] == used.before["accepted"], number
        assert not client.keys("*carried*")
    dying.close()


def test_a_renaming_that_stands_still_while_the_number_changes_makes_nobody_wrong(used, redis_url):
    rename(used)
    client, settings = used.client, used.settings
    dumps = {name: client.dump(name) for name in client.keys("*")}
    counting = DyingRedis.from_url(redis_url)
    Renaming(counting, settings, "insider", "insider-eu").run()
    trips = MOST_TRIPS - counting.left
    stalled = StalledRedis.from_url(redis_url)
    stalled.meanwhile = lambda: carry_on(used, (3,))

    for number in range(2, trips, max(1, trips // amount(6, nightly=60))):
        restore(client, dumps)
        stalled.left = number
        renaming = Renaming(stalled, load_settings(settings.source, environ={}), "insider",
                            "insider-eu", patience_seconds=0.1)  # fmt: skip
        with suppress(OperationsMustAct):
            renaming.run()
        carry_on(used, (3,))

        found = used.status()
        assert (found["skipped_by_reason"], found["waiting"]) == ({"superseded": PEOPLE}, 0), number
        assert (found["delivered"], found["dead"]) == (PEOPLE + 1, 1), number
        assert found["accepted"] == used.before["accepted"], number


def test_a_destination_that_is_named_while_the_number_changes_gets_nothing_in_former_partitions(
    relay, redis_url
):
    """A process with a newer configuration stands still between its start and its write."""
    relay.publish(payload("early@example.com"))
    older = load_settings(relay.settings.source, environ={})
    relay.configure(other=True, triggers=ENTER + ELSEWHERE)
    dumps = {name: relay.client.dump(name) for name in relay.client.keys("*")}
    stalled = StalledRedis.from_url(redis_url)

    def publish():
        settings = load_settings(relay.settings.source, environ={})
        publisher = Publisher(stalled, settings, doorbell=SilentDoorbell())
        for _ in range(3):
            with suppress(PartitionsChange):
                publisher.publish([orjson.dumps(payload("late@example.com"))], PublishOptions())
                return

    stalled.meanwhile = lambda: None
    stalled.left = MOST_TRIPS
    publish()
    trips = MOST_TRIPS - stalled.left
    stalled.meanwhile = lambda: Renumbering(relay.client, older, 3).run()
    for number in range(1, trips + 1):
        restore(relay.client, dumps)
        stalled.left = number
        publish()

        places = [PartitionKeys("other", number) for number in range(4)]
        assert not [place for place in places if relay.client.exists(place.streams)], number
        assert number == trips or relay.status()["waiting"] == 3


def test_nothing_is_removed_before_replicas_have_what_was_copied(used):
    demanding = SingleClient.from_url(used.settings.redis.url)
    demanding.replicas = 1

    with pytest.raises(NotReplicated):
        change(demanding, used, 3)

    assert six(used.status()) == six(used.before)
    assert not [key for key in used.client.keys("{insider:[4-6]}*") if b"lease" not in key]
    change(used.client, used, 3)
    assert six(used.status()) == six(used.before)


def test_other_commands_wait_until_it_is_done(used, call):
    used.client.set(keys.PARTITIONS, "4>3")

    with pytest.raises(PartitionsChange):
        call(app, "discard", "--trigger", "vip-enter", "--yes")
    shown = orjson.loads(call(app, "redis", "partitions", "--json").stdout)
    assert (shown["count"], shown["changing_to"]) == (4, 3)
    assert run(call, 3)["deliveries"] == PEOPLE + 1


def test_what_an_older_version_wrote_into_former_partitions_is_swept_up(used, call):
    run(call, 3)
    place = PartitionKeys("insider", 1)
    source = next(one for one in all_partitions(used.client, used.settings)
                  if used.client.smembers(one.streams))  # fmt: skip
    name = next(iter(used.client.smembers(source.streams))).decode()
    ((_, fields), *_) = used.client.xrange(source.stream(name))
    used.client.xadd(place.stream(name), fields)
    used.client.sadd(place.streams, name)
    used.client.hincrby(place.counts, f"accepted|{name.partition('|')[2]}", 1)

    assert run(call, 3)["deliveries"] == 1
    assert used.status()["waiting"] == PEOPLE + 2


def test_a_configuration_may_name_a_former_number_and_no_other(used, call):
    run(call, 3)
    claim(used.client, used.settings)
    path = used.settings.source
    path.write_text(path.read_text().replace("partitions = 4", "partitions = 5"))

    with pytest.raises(RedisMismatch, match=r"in use with 3 partitions.*redis partitions 5"):
        claim(used.client, load_settings(path, environ={}))


def test_all_of_many_profiles_are_there_afterwards(relay):
    client, settings = relay.client, relay.settings
    claim(client, settings)
    client.sadd(keys.DESTINATIONS, "insider")
    for first in range(0, PROFILES, 10_000):
        pipe = client.pipeline(transaction=False)
        for n in range(first, min(PROFILES, first + 10_000)):
            key = f"email:p{n}@example.com"
            place = PartitionKeys("insider", settings.redis.numbering.of(key))
            pipe.set(place.ledger(digest_of(key)), b"%d" % n, px=10_000_000 if n % 2 else None)
        pipe.execute()

    for count in (3, 64):
        assert change(client, relay, count).profiles == PROFILES

    numbering = learn_numbering(client, settings)
    found = 0
    shares = [0] * numbering.count
    for name in client.scan_iter(match="{insider:*}l*", count=10_000):
        if not name.endswith(b"}lease"):
            found += 1
            shares[int(name[9:].partition(b"}")[0]) - numbering.first] += 1
    assert found == PROFILES
    assert max(shares) < 1.25 * PROFILES / 64
    sample = range(0, PROFILES, 997)
    for n in sample:
        key = f"email:p{n}@example.com"
        name = PartitionKeys("insider", numbering.of(key)).ledger(digest_of(key))
        assert client.get(name) == b"%d" % n
        assert (client.pttl(name) > 0) == bool(n % 2)

"""`segrelay redis partitions N`: everything that is kept by partition goes to new ones."""

import orjson
import pytest

from segrelay.ops.main import app
from segrelay.ops.state.partitions import all_partitions
from segrelay.worker.adapters.redis.survey import RedisLapsing
from segrelay.worker.batch.partition import Intent
from segrelay.worker.contract import keys
from segrelay.worker.contract.events import decode_header, encode_header
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.people import Forward
from segrelay.worker.contract.processes import Process
from segrelay.worker.contract.receivers import report_receiver
from segrelay.worker.contract.redis.claim import claim, learn_numbering
from segrelay.worker.contract.redis.connection import now_us
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import OperationsMustAct, PartitionsChange, RedisMismatch
from tests.integration.ops.moving.stock import change, drain, enrich, key_of, six
from tests.integration.ops.relay import payload
from tests.ledger_keys import age_ledger, digest_in
from tests.members import marks_of
from tests.nightly import amount

pytestmark = pytest.mark.also_sealed

PEOPLE = 12
PROFILES = amount(8_000, nightly=1_000_000)


def run(call, count, *options):
    return orjson.loads(
        call(app, "redis", "partitions", str(count), "--yes", "--json", *options).stdout
    )


@pytest.mark.parametrize("counts", [(3,), (1,), (7, 2), (4,)])
def test_older_enters_do_not_pass_exits_that_were_delivered_before(used, call, counts):
    for count in counts:
        done = run(call, count)

    assert (done["to"], done["profiles"], done["deliveries"], done["dead_letters"]) == (
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


def age(relay, *, days):
    """Let what waits have waited for so long, and each ledger have been written in between."""
    earlier_ms = days * 86_400_000
    for partition in all_partitions(relay.client, relay.settings):
        for name in relay.client.smembers(partition.streams):
            stream = partition.stream(name.decode())
            rows = relay.client.xrange(stream)
            relay.client.unlink(stream)
            for entry_id, fields in rows:
                ms, number = map(int, entry_id.split(b"-"))
                header = decode_header(fields[b"h"])
                header = header._replace(accepted_ms=header.accepted_ms - earlier_ms)
                aged = {**fields, b"h": encode_header(header)}
                relay.client.xadd(stream, aged, id=f"{ms - earlier_ms}-{number}")
    age_ledgers(relay, days=days // 2)


def age_ledgers(relay, *, days):
    for partition in all_partitions(relay.client, relay.settings):
        for name in relay.client.keys(f"{partition.tag}l*"):
            if digest_in(name, partition):
                age_ledger(relay.client, name, days * 86_400_000)


def lapsed(relay):
    """Look at all ledgers as a worker does; returns how many were removed."""
    lapsing = RedisLapsing(relay.client, relay.settings)
    return sum(lapsing.step() for _ in range(5))


@pytest.mark.parametrize("counts", [(3,), (7, 1)])
def test_ledgers_outlast_what_waits_also_where_it_is_moved(used, call, counts):
    age(used, days=400)
    assert lapsed(used) == 0
    for count in counts:
        run(call, count)
        learn_numbering(used.client, used.settings)
        assert lapsed(used) == 0
        age_ledgers(used, days=100)
        assert lapsed(used) == 0

    drain(used)
    assert used.status()["skipped_by_reason"] == {"superseded": PEOPLE}
    assert lapsed(used) == PEOPLE


def test_a_letter_is_found_under_its_former_id_and_replayed(used, call):
    (dead_letter,) = orjson.loads(call(app, "dlq", "list", "--json").stdout)
    file = str(used.settings.source.parent / "letters")
    call(app, "dlq", "export", file)
    run(call, 3)

    shown = orjson.loads(call(app, "dlq", "show", dead_letter["id"], "--json").stdout)
    assert shown["id"] != dead_letter["id"]
    assert run(call, 3)["dead_letters"] == 0

    assert orjson.loads(call(app, "dlq", "import", file, "--json").stdout) == {
        "lines": 1, "added": 0, "problems": []
    }  # fmt: skip


def test_everything_goes_where_it_belongs(used):
    enrich(used, PEOPLE)
    client = used.client

    change(client, used, 3)

    numbering = learn_numbering(client, used.settings)
    assert numbering == Numbering((4, 3))
    for person in (f"p{n}@example.com" for n in range(PEOPLE)):
        digest, key = digest_of(key_of(person)), key_of(person)
        partition = PartitionKeys("insider", numbering.of(key))
        assert partition.number in numbering.numbers
        assert client.get(partition.ledger(digest))
        forward = Forward.loads(client.hget(partition.forwards, digest.hex()))
        assert forward.partition == numbering.of(key_of("new@example.com"))
        assert client.hget(partition.forwards, f"{digest.hex()}|vip") == b"mark"
        assert marks_of(client, partition, "vip")[key] == b"1 x"
        assert client.hexists(partition.who, digest.hex())
        assert client.zscore(partition.reached, digest.hex()) == 0
        noted = [
            intent_id[:4]
            for intent_id, text in client.hgetall(partition.intents).items()
            if digest in {row.digest for row in Intent.loads("", text, 0).deliveries}
        ]
        assert sorted(noted) == [b"lost", b"open"]
        assert set(client.hgetall(partition.open).values()) == {b"7"}
        assert set(client.hgetall(partition.open)) < set(client.hgetall(partition.intents))
        lines = [orjson.loads(fields[b"e"]) for _, fields in client.xrange(partition.history)]
        assert digest.hex() in {line[1] for line in lines}
    partitions = [PartitionKeys("insider", number) for number in numbering.numbers]
    for partition in partitions:
        assert client.hgetall(partition.jobs) == {
            b"load": b"7", b"load|chunk": b"2,3", b"load|epoch": b"11"
        }  # fmt: skip
        assert client.hget(f"{partition.jobs}:source", "load|chunk") == b"0,1,2,3,9"
        assert 9_000 < client.ttl(f"{partition.jobs}:source") <= 10_000
        assert client.hgetall(partition.retry) == {b"vip-enter": b"[1, 0, 0]"}
        digests = [
            row.digest
            for intent_id, text in client.hgetall(partition.intents).items()
            for row in Intent.loads(intent_id.decode(), text, 0).deliveries
        ]
        assert {numbering.of_digest(digest) for digest in digests} <= {partition.number}
    assert sum(client.xlen(partition.responses) for partition in partitions) == 4
    assert sum(int(client.get(partition.responseslost) or 0) for partition in partitions) == 12
    assert sum(client.hlen(partition.aside) for partition in partitions) > 0


def test_deliveries_keep_their_order_and_their_times(relay):
    for n in range(40):
        relay.publish(payload(f"p{n % 7}@example.com", minute=n))
    before = sorted(
        (tuple(map(int, entry_id.split(b"-"))), fields[b"h"])
        for partition in relay.partitions()
        for name in relay.client.smembers(partition.streams)
        for entry_id, fields in relay.client.xrange(partition.stream(name.decode()))
    )

    change(relay.client, relay, 1)

    (partition,) = all_partitions(relay.client, relay.settings)
    rows = relay.client.xrange(partition.stream("live|vip-enter"))
    assert [fields[b"h"] for _, fields in rows] == [header for _, header in before]
    times = [int(entry_id.split(b"-")[0]) for entry_id, _ in rows]
    assert times == [entry_id[0] for entry_id, _ in before]


def test_other_commands_wait_until_it_is_done(used, call):
    used.client.set(keys.PARTITIONS, "4>3")

    with pytest.raises(PartitionsChange):
        call(app, "discard", "--trigger", "vip-enter", "--yes")
    shown = orjson.loads(call(app, "redis", "partitions", "--json").stdout)
    assert (shown["count"], shown["changing_to"]) == (4, 3)
    assert run(call, 3)["deliveries"] == PEOPLE + 1


def test_nothing_changes_while_a_worker_or_a_receiver_runs(used, call):
    client = used.client
    worker = Process("elsewhere", 7, "drains", "x")
    client.zadd(keys.PROCESSES, {worker.dumps(): now_us(client)})

    with pytest.raises(OperationsMustAct, match="worker elsewhere:7"):
        call(app, "redis", "partitions", "3", "--yes")

    client.delete(keys.PROCESSES)
    report_receiver(client, {}, {}, lag_ms=0, events=False)
    with pytest.raises(OperationsMustAct, match="receiver "):
        call(app, "redis", "partitions", "3", "--yes")
    assert client.get(keys.PARTITIONS) == b"4"

    report_receiver(client, {}, {}, lag_ms=-1, events=False)
    assert run(call, 3)["to"] == 3


def test_nothing_changes_without_room_for_all_of_it_twice(used, call):
    used.client.config_set("maxmemory", int(used.client.info("memory")["used_memory"] * 1.5))
    try:
        with pytest.raises(OperationsMustAct, match="set `maxmemory` to at least"):
            call(app, "redis", "partitions", "3", "--yes")
    finally:
        used.client.config_set("maxmemory", 0)

    assert used.client.get(keys.PARTITIONS) == b"4"


def test_what_nobody_knows_is_not_left_behind(used):
    used.client.set(f"{PartitionKeys('insider', 1).tag}later", "x")

    with pytest.raises(OperationsMustAct, match="does not know what"):
        change(used.client, used, 3)

    used.client.delete(f"{PartitionKeys('insider', 1).tag}later")
    assert change(used.client, used, 3).deliveries == PEOPLE + 1


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
    client.hset(keys.DESTINATIONS, "insider", "insider ")
    for first in range(0, PROFILES, 10_000):
        pipe = client.pipeline(transaction=False)
        for n in range(first, min(PROFILES, first + 10_000)):
            key = f"email:p{n}@example.com"
            partition = PartitionKeys("insider", settings.redis.numbering.of(key))
            pipe.set(partition.ledger(digest_of(key)), b"%d" % n, px=10_000_000 if n % 2 else None)
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

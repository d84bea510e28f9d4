"""A record of a newer version, or a damaged one, stops nothing but what it is about."""

import orjson
import pytest

from segrelay.ops.metrics.page import MetricsPage
from segrelay.ops.outcomes import Cursor
from segrelay.ops.state.background import VerifyState
from segrelay.ops.status.health import read_ill_names
from segrelay.ops.status.standing import read_standing
from segrelay.producer.backfill.jobs import JobStore, WatchState
from segrelay.producer.tasks import ExportState
from segrelay.worker.adapters.redis.survey import RedisProgress
from segrelay.worker.contract import keys
from segrelay.worker.contract.processes import WORKER, Process, report_receiver
from segrelay.worker.contract.redis.acts import Act, note_act, read_acts
from segrelay.worker.contract.redis.connection import now_us
from segrelay.worker.errors import FormatUnknown
from tests.configuration import table


def newer(text):
    """Return a record as a newer version writes it: with a field more."""
    return orjson.dumps(orjson.loads(text) | {"of_a_newer_version": 1})


def cut(text):
    return text[: len(text) // 2]


def change_field(relay, key, field, change):
    relay.client.hset(key, field, change(relay.client.hget(key, field)))


def write_sample(relay, change):
    RedisProgress(relay.client, relay.settings).note()
    relay.client.lset(keys.PROGRESS, 0, change(relay.client.lindex(keys.PROGRESS, 0)))


def write_worker(relay, change):
    text = Process("one", 7, WORKER, relay.settings.fingerprint).dumps()
    relay.client.zadd(keys.PROCESSES, {change(text): now_us(relay.client)})


def write_receiver(relay, change):
    report_receiver(relay.client, {200: 1}, {}, lag_ms=0, events=True)
    [field] = [one for one in relay.client.hkeys(keys.RECEIVER) if one.startswith(b"up|")]
    changed = (lambda text: text + b"|1") if change is newer else (lambda text: b"?" + text)
    change_field(relay, keys.RECEIVER, field, changed)


def write_sync(relay, change):
    change_field(relay, keys.sync("vip"), "state", change)


def write_job(relay, change):
    rows = relay.settings.folder / "rows.ndjson"
    rows.write_text('{"email": "ann@example.com"}\n')
    named = ("--audience", "vip", "--as-of", "now", "--job", "load")
    relay.call("backfill", "start", str(rows), *named)
    change_field(relay, keys.job("load"), "spec", change)


def write_watch(relay, change):
    watch = {"source": "drop-*.ndjson", "audience": "vip", "as_of": "now"}
    relay.change(("[delivery]", table("backfill.watch.drop", **watch) + "[delivery]"))
    text = WatchState(existing=3).dumps()
    relay.client.hset(keys.watch("drop"), "state", change(text))


def write_verify(relay, change):
    relay.change(('api = "insider"', 'api = "insider"\nverify_every = "1h"'))
    relay.client.hset(keys.verify("insider"), "state", change(VerifyState(people=3).dumps()))


RECORDS = {
    "a sample of progress": (write_sample, lambda standing: len(standing.samples) == 1),
    "a worker": (write_worker, lambda standing: len(standing.processes) == 1),
    "a receiver": (write_receiver, lambda standing: len(standing.receivers.running) == 1),
    "sync vip": (write_sync, lambda standing: standing.syncs["vip"].number == 1),
    "job load": (write_job, lambda standing: standing.jobs["load"].rows == 1),
    "watch drop": (write_watch, lambda standing: standing.watches["drop"].existing == 3),
    "verify insider": (write_verify, lambda standing: standing.verified["insider"].people == 3),
}
"""How each record is written with a change of its text, and how one sees that it is read."""


@pytest.fixture
def site(relay_of_a_sync, call):
    relay_of_a_sync.call = call
    return relay_of_a_sync


@pytest.mark.parametrize("name", RECORDS)
def test_fields_that_this_version_does_not_know_are_ignored(site, name):
    write, is_read = RECORDS[name]
    write(site, newer)

    standing = read_standing(site.client, site.settings)

    assert is_read(standing)
    assert standing.unreadable == []


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record_is_named_and_stops_nothing_else(site, name):
    write, _ = RECORDS[name]
    write(site, cut)

    document = orjson.loads(site.call("status", "--json").stdout)

    named = [one["subject"] for one in document["problems"] if one["name"] == "record_unreadable"]
    assert named == [name]
    assert document["delivered"] == 12
    assert b"segrelay_deliveries" in MetricsPage(site.client, site.settings).text()
    assert isinstance(read_ill_names(site.client, site.settings), list)


@pytest.mark.parametrize("change", [newer, cut])
def test_an_act_of_another_version_does_not_hide_the_others(relay, call, change):
    relay.configure()
    note_act(relay.client, Act("pause", "ops"))
    [(_, fields)] = relay.client.xrange(keys.ACTS)
    relay.client.xadd(keys.ACTS, {**fields, b"a": change(fields[b"a"])})
    note_act(relay.client, Act("resume", "ops"))

    assert call("audit").exit_code == 0
    assert len(list(read_acts(relay.client))) == 3


def test_the_progress_of_responses_that_cannot_be_read_begins_anew():
    assert ExportState.loads(b'{"failures": 3, "newer": 1}').failures == 3
    assert ExportState.loads(b'{"fai') == ExportState()


@pytest.mark.parametrize("kind", [Cursor, WatchState])
def test_what_would_lose_something_if_it_began_anew_is_refused_where_it_cannot_be_read(kind):
    text = kind().dumps()

    assert kind.loads(newer(text)) == kind()
    with pytest.raises(FormatUnknown, match="damaged, or a newer version"):
        kind.loads(cut(text))


def test_readiness_does_not_depend_on_what_health_can_read(relay):
    relay.configure()
    relay.client.set(keys.PROGRESS, "not a list")

    assert read_ill_names(relay.client, relay.settings) == ()


def test_a_job_that_cannot_be_read_is_not_found(site):
    write_job(site, cut)

    assert JobStore(site.client).find("load") is None

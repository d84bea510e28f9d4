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


RECORDS = {
    "a sample of progress": lambda standing: len(standing.samples) == 1,
    "a worker": lambda standing: len(standing.processes) == 1,
    "a receiver": lambda standing: len(standing.receivers.running) == 1,
    "sync vip": lambda standing: standing.syncs["vip"].number == 1,
    "job load": lambda standing: standing.jobs["load"].rows == 1,
    "watch drop": lambda standing: standing.watches["drop"].existing == 3,
    "verify insider": lambda standing: standing.verified["insider"].people == 3,
}
"""The subject of each record, and how one sees that it is read."""


@pytest.fixture
def write(relay_of_a_sync, call):
    """Return what writes a record of each kind with a change of its text."""
    relay, client = relay_of_a_sync, relay_of_a_sync.client

    def change_field(key, field, change):
        client.hset(key, field, change(client.hget(key, field)))

    def written(change):
        watch = {"source": "drop-*.ndjson", "audience": "vip", "as_of": "now"}
        relay.change(
            ("[delivery]", table("backfill.watch.drop", **watch) + "[delivery]"),
            ('api = "insider"', 'api = "insider"\nverify_every = "1h"'),
        )
        rows = relay.settings.folder / "rows.ndjson"
        rows.write_text('{"email": "ann@example.com"}\n')
        call("backfill", "start", rows, "--audience", "vip", "--as-of", "now", "--job", "load")
        RedisProgress(client, relay.settings).note()
        client.lset(keys.PROGRESS, 0, change(client.lindex(keys.PROGRESS, 0)))
        worker = Process("one", 7, WORKER, relay.settings.fingerprint).dumps()
        client.zadd(keys.PROCESSES, {change(worker): now_us(client)})
        report_receiver(client, {200: 1}, {}, lag_ms=0, events=True)
        [up] = [field for field in client.hkeys(keys.RECEIVER) if field.startswith(b"up|")]
        change_field(
            keys.RECEIVER, up, lambda text: text + b"|1" if change is newer else b"?" + text
        )
        change_field(keys.sync("vip"), "state", change)
        change_field(keys.job("load"), "spec", change)
        client.hset(keys.watch("drop"), "state", change(WatchState(existing=3).dumps()))
        client.hset(keys.verify("insider"), "state", change(VerifyState(people=3).dumps()))
        return relay

    return written


def test_fields_that_this_version_does_not_know_are_ignored(write):
    relay = write(newer)

    standing = read_standing(relay.client, relay.settings)

    assert [name for name, is_read in RECORDS.items() if not is_read(standing)] == []
    assert standing.unreadable == []


def test_a_damaged_record_is_named_and_stops_nothing_else(write, call):
    relay = write(cut)

    document = orjson.loads(call("status", "--json").stdout)

    named = [one["subject"] for one in document["problems"] if one["name"] == "record_unreadable"]
    assert sorted(named) == sorted(RECORDS)
    assert document["delivered"] == 12
    assert JobStore(relay.client).find("load") is None
    assert b"segrelay_deliveries" in MetricsPage(relay.client, relay.settings).text()
    assert isinstance(read_ill_names(relay.client, relay.settings), list)
    relay.client.delete(keys.PROGRESS)
    relay.client.set(keys.PROGRESS, "not a list")
    assert read_ill_names(relay.client, relay.settings) == (), "readiness does not depend on it"


def test_an_act_of_another_version_does_not_hide_the_others(relay, call):
    note_act(relay.client, Act("pause", "ops"))
    [(_, fields)] = relay.client.xrange(keys.ACTS)
    for change in (newer, cut):
        relay.client.xadd(keys.ACTS, {**fields, b"a": change(fields[b"a"])})
    note_act(relay.client, Act("resume", "ops"))

    assert call("audit").exit_code == 0
    assert len(list(read_acts(relay.client))) == 4


def test_the_progress_of_responses_that_cannot_be_read_begins_anew():
    assert ExportState.loads(b'{"failures": 3, "newer": 1}').failures == 3
    assert ExportState.loads(b'{"fai') == ExportState()


@pytest.mark.parametrize("kind", [Cursor, WatchState])
def test_what_would_lose_something_if_it_began_anew_is_refused_where_it_cannot_be_read(kind):
    text = kind().dumps()

    assert kind.loads(newer(text)) == kind()
    with pytest.raises(FormatUnknown, match="damaged, or a newer version"):
        kind.loads(cut(text))

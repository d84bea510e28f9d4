"""Exports of the outcome log: rows whose sums are the counts of `status`, each once."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import orjson
import pytest

from segrelay.ops.outcomes import Cursor
from segrelay.producer.steps import StepStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.errors import UsageWrong
from tests.full import full
from tests.integration.ops.outcomes.counting import counted, counts_of, rows_of
from tests.integration.ops.relay import payload
from tests.s3 import BUCKET, s3_bucket

pytestmark = pytest.mark.also_sealed(nightly=True)


def lively(relay, sandbox, call):
    """Let deliveries end in every way, and take deaths back."""
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(
        *(payload(f"p{n}@example.com", minute=1) for n in range(40)),
        *(payload(f"q{n}@example.com", minute=1, status="poisoned") for n in range(12)),
        job="load",
    )
    relay.deliver(*(payload(f"p{n}@example.com", minute=0) for n in range(7)))
    letters = sorted(one["id"] for one in orjson.loads(call("dlq", "list", "--json").stdout))
    sandbox.settings(poison="")
    assert call("dlq", "replay", *letters[:5], "--yes").exit_code == 0
    relay.drain()
    assert call("dlq", "discard", *letters[5:8], "--yes").exit_code == 0
    relay.publish(*(payload(f"r{n}@example.com") for n in range(9)), job="load")
    relay.publish(*(payload(f"s{n}@example.com") for n in range(4)))
    assert call("discard", "--job", "load", "--yes").exit_code == 0
    assert call("discard", "--trigger", "vip-enter", "--audience", "vip", "--yes").exit_code == 0


@pytest.fixture
def rows(call, tmp_path):
    """Export all that is kept, and return the rows."""

    def exported_rows():
        assert call("outcomes", "export", tmp_path / "all.ndjson").exit_code == 0
        return rows_of(tmp_path / "all.ndjson")

    return exported_rows


def test_the_sums_of_an_export_are_the_counts_of_status(relay, sandbox, call, tmp_path):
    lively(relay, sandbox, call)

    result = call("outcomes", "export", tmp_path / "all.ndjson")
    call("outcomes", "export", tmp_path / "all.parquet", "--since", "1h")

    rows = rows_of(tmp_path / "all.ndjson")
    assert result.exit_code == 0
    assert f"{len(rows)} rows written" in result.stderr
    status = relay.status()
    assert counted(rows) == counts_of(status)
    assert (status["delivered"], status["dead"], status["discarded"]) == (45, 4, 16)
    assert len({row["id"] for row in rows}) == len(rows)
    assert not list(tmp_path.glob(".*.part"))
    told = duckdb.read_parquet(str(tmp_path / "all.parquet"))  # noqa: F841 - the query names it
    found = duckdb.sql(
        """SELECT "trigger", outcome, coalesce(reason, ''), sum(counts)::INT AS n
        FROM told GROUP BY ALL HAVING n <> 0"""
    ).fetchall()
    assert {tuple(key): n for *key, n in found} == counts_of(status)


def test_a_row_says_how_a_delivery_ended_and_nothing_of_the_person(relay, call, rows):
    relay.deliver(payload("ann@example.com", first_name="Secretina"))

    result = call("outcomes", "export", "-", "--since", "1h")

    (row,) = [orjson.loads(line) for line in result.stdout.splitlines()]
    ended = datetime.fromisoformat(row["time"])
    assert abs((datetime.now(UTC) - ended).total_seconds()) < 60
    assert row["person"] == digest_of("email:ann@example.com").hex()
    assert (row["audience"], row["direction"], row["trigger"]) == ("vip", "enter", "vip-enter")
    assert (row["outcome"], row["reason"], row["status"]) == ("delivered", None, 200)
    assert (row["attempts"], row["lane"], row["destination"]) == (1, "live", "insider")
    assert len(row["template_version"]) > 5
    before = relay.status()
    log = "".join(repr(relay.client.xrange(one.outcomes)) for one in relay.partitions())
    assert not [one for one in ("Secretina", "ann@example.com") if one in result.stdout + log]
    assert call("erase", "ann@example.com", "--yes").exit_code == 0
    [erased] = found = rows()
    assert erased["person"] is None
    assert counted(found) == counts_of(before)


def test_an_export_covers_the_time_that_is_asked_for(relay, call, tmp_path):
    relay.deliver(payload("ann@example.com"))
    time.sleep(0.01)
    seconds, micros = relay.client.time()
    between = datetime.fromtimestamp(seconds + micros / 1_000_000, UTC).isoformat()
    time.sleep(0.01)
    relay.deliver(payload("bob@example.com"))

    call("outcomes", "export", tmp_path / "before.ndjson", "--until", between)
    call("outcomes", "export", tmp_path / "after.ndjson", "--since", between)

    people = {
        name: [row["person"] for row in rows_of(tmp_path / f"{name}.ndjson")]
        for name in ("before", "after")
    }
    assert people["before"] == [digest_of("email:ann@example.com").hex()]
    assert people["after"] == [digest_of("email:bob@example.com").hex()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("all.csv",), r"name it \.ndjson or \.parquet"),
        (("there.ndjson",), "is there already"),
        (("all.ndjson", "--since", "yesterday"), "write a moment"),
        (("all.ndjson", "--since", "1h", "--until", "2h"), "--until has to be later"),
        (("all.ndjson", "--cursor", "a", "--since", "1h"), "neither --since"),
        (("all.ndjson", "--cursor", "A b"), "small letters"),
        (("there.ndjson", "--cursor", "a"), "is there already"),
    ],
)
def test_an_export_says_what_is_wrong(call, tmp_path, arguments, message):
    (tmp_path / "there.ndjson").write_text("")
    name, *options = arguments

    with pytest.raises(UsageWrong, match=message):
        call("outcomes", "export", tmp_path / name, *options)

    assert not (tmp_path / "all.ndjson").exists()


def test_a_full_redis_settles_and_records_and_a_killed_export_is_given_again(relay, rows, tmp_path):
    relay.publish(*(payload(f"p{n}@example.com") for n in range(20)))
    (tmp_path / ".all.ndjson.part").write_text("the half that a killed export has written")
    with full(relay.client, "1mb"):
        relay.drain()

    assert counted(rows()) == {("vip-enter", "delivered", ""): 20}
    assert not (tmp_path / ".all.ndjson.part").exists()


def lose_the_oldest(relay):
    """Let all rows that are kept be gone, as if there were no room for them any more."""
    for partition in relay.partitions():
        for entry_id, _ in relay.client.xrange(partition.outcomes):
            relay.client.xdel(partition.outcomes, entry_id)
            gone_ms = int(entry_id.partition(b"-")[0]) + 1
            relay.client.hset(partition.recorded, "since", gone_ms)


def exported(call, file, *, name="warehouse"):
    return call("outcomes", "export", file, "--cursor", name)


def test_under_a_name_each_row_leaves_once_and_by_one_export_at_a_time(
    relay, sandbox, call, tmp_path
):
    files = [tmp_path / f"{number}.ndjson" for number in range(3)]
    relay.deliver(payload("ann@example.com"))
    assert "1 row written" in exported(call, files[0]).stderr
    lively(relay, sandbox, call)

    assert exported(call, files[1]).exit_code == 0
    assert "0 rows written" in exported(call, files[2]).stderr
    exported(call, tmp_path / "other.ndjson", name="other")

    assert not files[2].exists()
    rows = rows_of(*files[:2])
    assert len({row["id"] for row in rows}) == len(rows)
    assert counted(rows) == counts_of(relay.status())
    assert sorted(map(str, rows_of(tmp_path / "other.ndjson"))) == sorted(map(str, rows))
    StepStore(relay.client, keys.outcome_cursor("warehouse"), "a test", Cursor).take()
    with pytest.raises(UsageWrong, match="is under way"):
        exported(call, tmp_path / "all.ndjson")
    assert exported(call, tmp_path / "all.ndjson", name="another").exit_code == 0


def test_an_export_that_was_killed_before_or_behind_its_file_is_finished_by_the_next(
    relay, call, tmp_path
):
    first, second = tmp_path / "first.ndjson", tmp_path / "second.ndjson"
    store = StepStore(relay.client, keys.outcome_cursor("warehouse"), "a test", Cursor)
    for minute, stands in enumerate((False, True)):
        relay.deliver(payload(f"p{minute}@example.com"))
        before = store.peek()
        exported(call, first)
        planned = replace(before, until=store.peek().after, file=str(first))
        store.take()
        store.save(planned, ends=True)
        if not stands:
            first.unlink()
        relay.deliver(payload(f"q{minute}@example.com"))

        exported(call, second)

        assert [row["person"] for row in rows_of(first, second)] == [
            digest_of(f"email:{name}{minute}@example.com").hex() for name in "pq"
        ]
        first.unlink()
        second.unlink()


def test_an_export_says_that_rows_of_its_time_or_that_have_not_left_are_gone(relay, call, tmp_path):
    relay.deliver(payload("ann@example.com"))
    exported(call, tmp_path / "0.ndjson")
    lose_the_oldest(relay)
    since = call("outcomes", "export", tmp_path / "all.ndjson", "--since", "1h")
    assert rows_of(tmp_path / "all.ndjson") == []
    assert (since.exit_code, "Not all of it is kept" in since.stderr) == (1, True)
    for number in range(1, 3):
        relay.deliver(payload("ann@example.com", minute=number))
        result = exported(call, tmp_path / f"{number}.ndjson")
        assert result.exit_code == number - 1
        time.sleep(0.01)
        relay.deliver(payload("ann@example.com", minute=number + 5))
        lose_the_oldest(relay)

    assert "Not all of it is kept" in result.stderr


def test_an_address_that_takes_nothing_holds_no_later_export_up(relay, call, monkeypatch):
    with s3_bucket(monkeypatch) as s3:
        relay.deliver(payload("ann@example.com"))
        with pytest.raises(UsageWrong, match="there is no such object or bucket"):
            exported(call, "s3://no-such-bucket/all.ndjson")

        exported(call, f"s3://{BUCKET}/all.ndjson")

        content = s3.get_object(Bucket=BUCKET, Key="all.ndjson")["Body"].read()
    assert [orjson.loads(line)["outcome"] for line in content.splitlines()] == ["delivered"]

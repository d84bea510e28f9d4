"""Outcomes as data: rows whose sums are the counts of `status`, in an export and in files."""

import time
from datetime import UTC, datetime

import duckdb
import orjson
import pyarrow.parquet
import pytest

from segrelay.ops.main import app
from segrelay.ops.outcomes.files import Folder
from segrelay.ops.outcomes.writing import writing_for
from segrelay.worker.adapters.redis.survey import RedisSchedule
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.errors import LeaseLost, UsageWrong
from tests.integration.ops.outcomes.world import (
    counted,
    counts_of,
    recording,
    rows_in,
    rows_of,
    write,
)
from tests.integration.ops.relay import payload

pytestmark = pytest.mark.also_sealed(nightly=True)


def lively(relay, sandbox, call):
    """Let deliveries end in every way, and take deaths back."""
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.publish(
        *(payload(f"p{n}@example.com", minute=1) for n in range(40)),
        *(payload(f"q{n}@example.com", minute=1, status="poisoned") for n in range(12)),
        job="load",
    )
    relay.drain()
    relay.publish(*(payload(f"p{n}@example.com", minute=0) for n in range(7)))
    relay.drain()
    letters = sorted(one["id"] for one in orjson.loads(call(app, "dlq", "list", "--json").stdout))
    sandbox.settings(poison="")
    assert call(app, "dlq", "replay", *letters[:5], "--yes").exit_code == 0
    relay.drain()
    assert call(app, "dlq", "discard", *letters[5:8], "--yes").exit_code == 0
    relay.publish(*(payload(f"r{n}@example.com") for n in range(9)), job="load")
    relay.publish(*(payload(f"s{n}@example.com") for n in range(4)))
    assert call(app, "discard", "--job", "load", "--yes").exit_code == 0
    assert (
        call(app, "discard", "--trigger", "vip-enter", "--audience", "vip", "--yes").exit_code == 0
    )


def problems(call):
    found = orjson.loads(call(app, "status", "--json").stdout)["problems"]
    return {one["name"]: one for one in found}


def test_nothing_is_recorded_unless_it_is_configured(relay, call):
    relay.publish(payload("ann@example.com"))
    relay.drain()

    with pytest.raises(UsageWrong, match="add the table"):
        call(app, "outcomes", "status")

    assert not [key for key in relay.client.keys("*") if b"outcomes" in key or b"recorded" in key]


def test_the_sums_of_an_export_are_the_counts_of_status(relay, sandbox, call, tmp_path):
    recording(relay)
    lively(relay, sandbox, call)

    result = call(app, "outcomes", "export", tmp_path / "all.ndjson")

    rows = rows_of(tmp_path / "all.ndjson")
    assert result.exit_code == 0
    assert f"{len(rows)} rows written" in result.stderr
    status = relay.status()
    assert counted(rows) == counts_of(status)
    assert (status["delivered"], status["dead"], status["discarded"]) == (45, 4, 16)
    assert len({row["id"] for row in rows}) == len(rows)
    assert not list(tmp_path.glob(".*.part"))


def test_a_row_says_how_a_delivery_ended(relay, call):
    recording(relay, fields=["email", "plan"])
    relay.publish(payload("ann@example.com", plan={"level": 2}))
    relay.drain()

    result = call(app, "outcomes", "export", "-", "--since", "1h")

    (row,) = [orjson.loads(line) for line in result.stdout.splitlines()]
    ended = datetime.fromisoformat(row["time"])
    assert abs((datetime.now(UTC) - ended).total_seconds()) < 60
    assert row["person"] == digest_of("email:ann@example.com").hex()
    assert (row["audience"], row["direction"], row["trigger"]) == ("vip", "enter", "vip-enter")
    assert (row["outcome"], row["reason"], row["status"]) == ("delivered", None, 200)
    assert (row["attempts"], row["lane"], row["destination"]) == (1, "live", "insider")
    assert len(row["template_version"]) > 5
    assert (row["profile_email"], row["profile_plan"]) == ("ann@example.com", {"level": 2})


def test_without_fields_no_personal_data_is_recorded(relay, call):
    recording(relay)
    relay.publish(payload("ann@example.com", first_name="Secretina"))
    relay.drain()

    result = call(app, "outcomes", "export", "-")

    assert "Secretina" not in result.stdout
    assert "ann@example.com" not in result.stdout
    for partition in relay.partitions():
        assert b"ann@example.com" not in repr(relay.client.xrange(partition.outcomes)).encode()


def test_an_export_covers_the_time_that_is_asked_for(relay, call, tmp_path):
    recording(relay)
    relay.publish(payload("ann@example.com"))
    relay.drain()
    time.sleep(0.01)
    seconds, micros = relay.client.time()
    between = datetime.fromtimestamp(seconds + micros / 1_000_000, UTC).isoformat()
    time.sleep(0.01)
    relay.publish(payload("bob@example.com"))
    relay.drain()

    call(app, "outcomes", "export", tmp_path / "before.ndjson", "--until", between)
    call(app, "outcomes", "export", tmp_path / "after.ndjson", "--since", between)

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
    ],
)
def test_an_export_says_what_is_wrong(relay, call, tmp_path, arguments, message):
    recording(relay)
    (tmp_path / "there.ndjson").write_text("")
    name, *options = arguments

    with pytest.raises(UsageWrong, match=message):
        call(app, "outcomes", "export", tmp_path / name, *options)

    assert not (tmp_path / "all.ndjson").exists()


def test_files_hold_each_row_once(relay, sandbox, call, tmp_path):
    recording(relay, folder="out", every="1s")
    lively(relay, sandbox, call)
    time.sleep(2.1)

    write(relay)
    write(relay)

    rows = rows_in(tmp_path / "out")
    assert counted(rows) == counts_of(relay.status())
    assert len({row["id"] for row in rows}) == len(rows)
    document = orjson.loads(call(app, "outcomes", "status", "--json").stdout)
    assert (document["rows_in_files"], document["waiting_rows"]) == (len(rows), 0)
    assert relay.status()["outcomes"]["written"] == len(rows)


def test_a_query_over_parquet_files_agrees_with_status(relay, sandbox, call, tmp_path):
    recording(relay, folder="out", every="1s", format="parquet", fields=["email"])
    lively(relay, sandbox, call)
    time.sleep(2.1)
    write(relay)
    call(app, "outcomes", "export", tmp_path / "all.parquet", "--since", "1h")

    for files in (tmp_path / "out" / "*.parquet", tmp_path / "all.parquet"):
        rows = duckdb.read_parquet(str(files))  # noqa: F841 - the query names it
        found = duckdb.sql(
            """SELECT "trigger", outcome, coalesce(reason, ''), sum(counts)::INT AS n
            FROM rows GROUP BY ALL HAVING n <> 0"""
        ).fetchall()
        assert {tuple(key): n for *key, n in found} == counts_of(relay.status())
    kept = pyarrow.parquet.read_table(tmp_path / "all.parquet").to_pylist()
    assert {"p1@example.com", "q1@example.com"} <= {row["profile_email"] for row in kept}


def test_a_file_is_written_when_its_time_is_over(relay, tmp_path):
    recording(relay, folder="out")
    relay.publish(payload("ann@example.com"))
    relay.drain()

    assert write(relay) == ["no file is due"]
    assert not (tmp_path / "out").exists()


def test_a_file_is_written_early_where_there_is_much(relay, tmp_path):
    recording(relay, folder="out", max_bytes=1024 * 1024)
    relay.publish(*(payload(f"p{n}@example.com") for n in range(8_000)), job="load")
    relay.drain()

    write(relay)

    assert len(list((tmp_path / "out").iterdir())) >= 1
    assert relay.status()["outcomes"]["dropped"] == 0


def test_a_folder_that_takes_nothing_is_a_problem_and_misses_nothing_afterwards(
    relay, call, tmp_path
):
    recording(relay, folder="out", every="1s")
    blocked = tmp_path / "out"
    blocked.write_text("a file where the folder should be")
    relay.publish(payload("ann@example.com"))
    relay.drain()
    time.sleep(2.1)

    (line,) = write(relay)
    problem = problems(call)["outcomes_not_written"]
    relay.publish(payload("bob@example.com"))
    relay.drain()
    blocked.unlink()
    time.sleep(2.1)
    write(relay)

    assert "can't be written" in line
    assert problem["severity"] == "attention"
    assert "1 ends of deliveries are in no file" in problem["message"]
    assert counted(rows_in(blocked)) == counts_of(relay.status())
    assert "outcomes_not_written" not in problems(call)


def test_a_problem_is_ill_before_anything_is_dropped(relay, call, tmp_path):
    recording(relay, folder="out", every="1s", max_bytes=1024 * 1024, fields=["pad"])
    (tmp_path / "out").write_text("a file where the folder should be")
    seen = []
    for part in range(8):
        people = (payload(f"p{part}-{n}@example.com", pad="x" * 2_000) for n in range(120))
        relay.publish(*people, job="load")
        relay.drain()
        write(relay)
        found = problems(call)
        dropped = relay.status()["outcomes"]["dropped"]
        seen.append((dropped > 0, found.get("outcomes_not_written", {}).get("severity")))

    assert (False, "ill") in seen
    assert (True, "ill") in seen
    assert problems(call)["outcomes_dropped"]["severity"] == "ill"
    assert relay.status()["delivered"] == 8 * 120
    kept = sum(relay.client.memory_usage(one.outcomes) or 0 for one in relay.partitions())
    assert kept < 2 * 1024 * 1024


def test_a_full_redis_settles_and_records(relay, call, tmp_path):
    recording(relay)
    relay.publish(*(payload(f"p{n}@example.com") for n in range(20)))
    relay.client.config_set("maxmemory", "1mb")
    try:
        relay.drain()
    finally:
        relay.client.config_set("maxmemory", 0)

    call(app, "outcomes", "export", tmp_path / "all.ndjson")
    assert counted(rows_of(tmp_path / "all.ndjson")) == {("vip-enter", "delivered", ""): 20}


def test_files_are_due_in_a_full_redis_too(relay):
    recording(relay, folder="out")
    schedule = RedisSchedule(relay.client, relay.settings)
    relay.client.config_set("maxmemory", "1")
    try:
        due = [job.name for job in schedule.due()]
        again = schedule.due()
    finally:
        relay.client.config_set("maxmemory", 0)

    assert due == ["outcomes", "retention"]
    assert again == []


def test_an_export_that_was_killed_left_no_file_and_is_given_again(relay, call, tmp_path):
    recording(relay)
    relay.publish(payload("ann@example.com"))
    relay.drain()
    (tmp_path / ".all.ndjson.part").write_text("the half that a killed export has written")

    assert call(app, "outcomes", "export", tmp_path / "all.ndjson").exit_code == 0

    assert len(rows_of(tmp_path / "all.ndjson")) == 1
    assert not (tmp_path / ".all.ndjson.part").exists()


def test_a_writer_that_stood_still_while_another_wrote_publishes_nothing(tmp_path):
    folder = Folder(tmp_path)

    def slow(stream):
        stream.write(b"half")
        folder.put("a.ndjson", lambda other: other.write(b"whole") and None, lambda: None)

    with pytest.raises(LeaseLost):
        folder.put("a.ndjson", slow, lambda: None)

    assert [file.name for file in tmp_path.iterdir()] == ["a.ndjson"]
    assert (tmp_path / "a.ndjson").read_bytes() == b"whole"


def test_a_step_that_stood_still_until_another_wrote_the_file_writes_none(relay, tmp_path):
    recording(relay, folder="out", every="1s")
    relay.publish(*(payload(f"p{n}@example.com") for n in range(30)))
    relay.drain()
    time.sleep(2.1)
    steps = []

    def stand_still():
        """Let another step take the lock, which has lapsed, when the first row is written."""
        if not steps and list((tmp_path / "out").glob(".*")):
            relay.client.hset(keys.OUTCOMES, "until", 1)
            steps.append(writing_for(relay.client, relay.settings).step())
        return time.monotonic()

    writing = writing_for(relay.client, relay.settings)
    writing.monotonic = stand_still
    late = writing.step()
    write(relay)

    assert steps[0].taken
    assert not late.taken
    rows = rows_in(tmp_path / "out")
    assert len(rows) == len({row["id"] for row in rows}) == 30
    assert not list((tmp_path / "out").glob(".*"))


def test_a_step_that_was_killed_behind_its_file_does_not_write_it_again(relay, tmp_path):
    recording(relay, folder="out", every="1s")
    relay.publish(payload("ann@example.com"))
    relay.drain()
    time.sleep(2.1)
    before = relay.client.hgetall(keys.OUTCOMES)
    writing = writing_for(relay.client, relay.settings)
    planned = []
    writing.monotonic = lambda: planned.append(relay.client.hget(keys.OUTCOMES, "state")) or 0.0
    writing.step()
    assert b'"name":"outcomes-' in planned[-1]
    relay.client.hset(keys.OUTCOMES, mapping={"state": planned[-1], **before})
    relay.publish(payload("bob@example.com"))
    relay.drain()
    time.sleep(2.1)

    write(relay)

    rows = rows_in(tmp_path / "out")
    assert sorted(row["person"] for row in rows) == sorted(
        digest_of(f"email:{name}@example.com").hex() for name in ("ann", "bob")
    )


def test_rows_stay_and_are_written_when_the_number_of_partitions_changes(relay, call, tmp_path):
    recording(relay, folder="out", every="1s")
    relay.publish(*(payload(f"p{n}@example.com") for n in range(20)))
    relay.drain()

    assert call(app, "redis", "partitions", "7", "--yes").exit_code == 0
    time.sleep(2.1)
    write(relay)

    rows = rows_in(tmp_path / "out")
    assert counted(rows) == {("vip-enter", "delivered", ""): 20}
    assert len({row["id"] for row in rows}) == 20


def test_rows_about_somebody_who_is_erased_do_not_name_them(relay, call, tmp_path):
    recording(relay, fields=["email"])
    relay.publish(payload("ann@example.com"), payload("bob@example.com"))
    relay.drain()
    before = relay.status()

    assert call(app, "erase", "ann@example.com", "--yes").exit_code == 0

    call(app, "outcomes", "export", tmp_path / "all.ndjson")
    rows = rows_of(tmp_path / "all.ndjson")
    assert {row["profile_email"] for row in rows} == {None, "bob@example.com"}
    assert {row["person"] for row in rows} == {None, digest_of("email:bob@example.com").hex()}
    assert counted(rows) == counts_of(before)


def test_imported_letters_are_deaths(relay, sandbox, call, tmp_path):
    recording(relay)
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.publish(*(payload(f"q{n}@example.com", status="poisoned") for n in range(3)))
    relay.drain()
    call(app, "dlq", "export", tmp_path / "letters")
    call(app, "dlq", "discard", "--all", "--yes")

    assert call(app, "dlq", "import", tmp_path / "letters").exit_code == 0
    call(app, "dlq", "import", tmp_path / "letters")

    call(app, "outcomes", "export", tmp_path / "all.ndjson")
    rows = rows_of(tmp_path / "all.ndjson")
    assert counted(rows) == counts_of(relay.status())
    assert relay.status()["dead"] == 3


def make_old(relay):
    """Let all rows be older than they are kept for."""
    text = relay.settings.source.read_text().replace('keep = "30d"', 'keep = "1m"')
    relay.settings.source.write_text(text)
    relay.reload()
    for partition in relay.partitions():
        for entry_id, fields in relay.client.xrange(partition.outcomes):
            relay.client.delete(partition.outcomes)
            old = int(entry_id.partition(b"-")[0]) - 120_000
            relay.client.xadd(partition.outcomes, fields, id=f"{old}-0")


def test_what_is_gone_stays_known_when_the_number_of_partitions_changes(relay, call, tmp_path):
    recording(relay, folder="out", every="1s")
    relay.publish(payload("ann@example.com"))
    relay.drain()
    make_old(relay)
    for partition in relay.partitions():
        if relay.client.exists(partition.recorded):
            relay.client.hset(partition.recorded, mapping={"dropped": 7, "dropped_ms": 5})
    assert call(app, "redis", "partitions", "7", "--yes").exit_code == 0

    write(relay)
    result = call(app, "outcomes", "export", tmp_path / "all.ndjson", "--since", "1h")
    told = orjson.loads(call(app, "outcomes", "status", "--json").stdout)

    assert rows_of(tmp_path / "all.ndjson") == []
    assert result.exit_code == 1
    assert "Not all of that time is kept" in result.stderr
    assert (told["kept_rows"], told["dropped_rows"]) == (0, 7)
    assert told["complete_since"]


def test_rows_are_removed_when_they_were_kept_long_enough(relay, call, tmp_path):
    recording(relay, folder="out", every="1s")
    relay.publish(payload("ann@example.com"))
    relay.drain()
    make_old(relay)

    write(relay)
    result = call(app, "outcomes", "export", tmp_path / "all.ndjson", "--since", "1h")

    assert len(rows_in(tmp_path / "out")) == 1
    assert rows_of(tmp_path / "all.ndjson") == []
    assert result.exit_code == 1
    assert "Not all of that time is kept" in result.stderr

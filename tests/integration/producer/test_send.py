"""`segrelay send` as a person calls it."""

from functools import partial

import orjson
import pytest

from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.contract.redis.acts import Act
from segrelay.worker.contract.triggers import TRIGGER, Pause, field_of, set_pause
from segrelay.worker.errors import RedisUnavailable, SourceDamaged, UsageWrong
from tests.commands import called
from tests.integration.producer.redis_contents import entries
from tests.unit.producer.payload_samples import person
from tests.waiting import until


@pytest.fixture
def run(configure, monkeypatch):
    """Call the command; what it raises reaches the test."""
    settings = configure()
    monkeypatch.setenv("SEGRELAY_CONFIG", str(settings.source))
    return partial(called, "send")


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "events.ndjson"
        path.write_bytes(content)
        return path

    return write


def lines(*values):
    return b"\n".join(orjson.dumps(value) for value in values)


def test_the_document_has_exactly_what_was_promised(run, file):
    source = file(
        lines(person(1), 7, [person(2), person(3, enter="soon")], person(4, id=None, slug="x"))
    )

    result = run(source, "--json")

    document = orjson.loads(result.stdout)
    problems = document.pop("problems")
    assert result.exit_code == 0
    assert (document["payloads"], document["events"], document["repeated"]) == (5, 3, 0)
    assert (document["accepted"], document["unmatched"], document["refused"]) == (2, 1, 2)
    assert [(one["line"], one["index"], one["reason"]) for one in problems] == [
        (2, 0, "unreadable"),
        (3, 1, "bad_time"),
    ]


def test_strict_fails_if_any_was_refused(run, file):
    assert run(file(lines(person(1))), "--strict").exit_code == 0
    assert run(file(lines(person(1), 7)), "--strict").exit_code == 1


def test_standard_input_is_read(run, client):
    result = run("-", "--lane", "backfill", stdin=lines(person(1), person(2)))

    assert "2 deliveries accepted" in result.stdout
    assert "No worker runs, so what was sent waits" in result.stderr
    assert {entry.lane for entry in entries(client)} == {"backfill"}


def test_an_empty_file_is_no_error_but_is_said(run, file):
    result = run(file(b""))

    assert result.exit_code == 0
    assert "holds no payloads" in result.stderr


TABLE = r"is a table \(CSV\).*segrelay backfill start"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"BZh9", "bzip2: `bzcat FILE . segrelay send -"),
        ("{}".encode("utf-16"), "UTF-16: `iconv -f utf-16 -t utf-8 FILE . segrelay send -"),
        (b"\x00\x01\x02", "binary zeros"),
        (b"email,name\nann@example.com,Ann\n", TABLE),
        (b'"email";"name"\n', TABLE),
        (b"\xef\xbb\xbfemail\tname\n", TABLE),
        (lines({"email": "a@b.c"}, {"email": "d@b.c"}), "backfill start .*s.ndjson --audience"),
    ],
)
def test_what_holds_no_events_is_refused_at_the_first_look(run, file, client, content, message):
    with pytest.raises(UsageWrong, match=message):
        run(file(content))
    assert client.keys("*") == []


def test_a_file_that_is_none_is_named(run, tmp_path):
    with pytest.raises(UsageWrong, match="there is no such file"):
        run(tmp_path / "missing.ndjson")
    with pytest.raises(UsageWrong, match="is a directory"):
        run(tmp_path)


@pytest.mark.parametrize("arguments", [("--lane", "fast"), ("--timeout", "soon")])
def test_wrong_options_are_refused_before_anything_is_sent(run, file, client, arguments):
    with pytest.raises(UsageWrong):
        run(file(lines(person(1))), *arguments)

    assert entries(client) == []


def test_waiting_tells_what_stops_it_and_ends_at_the_timeout(run, file, client):
    pause = Pause("the list is being checked", by="ann")
    set_pause(client, field_of(TRIGGER, "vip-enter"), pause, Act("pause", "ann"))

    result = run(file(lines(person(1))), "--wait", "--timeout", "0")

    assert result.exit_code == 1
    assert "waiting: no worker has been seen" in result.stderr
    assert "trigger vip-enter is paused: the list is being checked" in result.stderr
    assert "Still waiting: 1 delivery" in result.stderr


@pytest.mark.parametrize("content", [lines(7), lines(person(1, id=None, slug="unknown"))])
def test_a_file_of_which_nothing_was_accepted_has_failed(run, file, content):
    assert run(file(content), "--wait").exit_code == 1


def test_one_row_without_events_among_others_costs_only_itself(run, file):
    document = orjson.loads(run(file(lines({"email": "x"}, person(1))), "--json").stdout)

    assert (document["accepted"], document["refused"]) == (1, 1)


def test_a_dry_run_says_what_would_be_accepted_and_writes_nothing(run, file, client):
    source = file(lines(person(1), 7, person(2, id=None, slug="other")))

    result = run(source, "--dry-run", "--json")
    told = run(source, "--dry-run")

    document = orjson.loads(result.stdout)
    assert (document["accepted"], document["unmatched"], document["refused"]) == (1, 1, 1)
    assert (document["dry_run"], client.keys("*")) == (True, [])
    assert "1 delivery would be accepted" in told.stdout
    assert "nothing was written" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "skipped", "said"),
    [
        ((), 0, ""),
        (("--lane", "backfill"), 1, "is told to start no journeys for these; --hooks"),
        (("--lane", "backfill", "--hooks"), 0, ""),
        (("--no-hooks",), 1, "is told to start no journeys for these; --hooks"),
    ],
)
def test_the_summary_says_for_whom_no_journeys_start(
    run, file, client, *, arguments, skipped, said
):
    result = run(file(lines(person(1))), *arguments)

    assert said in result.stdout
    assert bool(said) == ("journeys" in result.stdout)
    assert [entry.header.skip_hook for entry in entries(client)] == [bool(skipped)]


def test_what_a_payload_holds_is_escaped_before_a_terminal_sees_it(run, file, client):
    slug = "vip\x1b[2J\u202e"
    source = file(lines(person(1, slug=slug, id=None), person(2, slug=slug, event="\x1b[2J")))
    run(source)
    client.hset("{segrelay}:audiences", "1\x1b[2J", slug)

    commands = [
        *(["quarantine", "list"], ["quarantine", "list", "--json"], ["audience", "list"]),
        *(["quarantine", "show", record.id] for record in Quarantine(client).records()),
    ]
    texts = [called(*command).output for command in commands]
    texts.append(run(source).output)

    assert "vip\\x1b[2J\\u202e" in texts[0]
    assert {char for text in texts for char in text if not char.isprintable()} == {"\n"}


def test_a_full_redis_is_said_after_the_timeout(run, file, client):
    until(lambda: client.info("memory")["lazyfree_pending_objects"] == 0)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    try:
        with pytest.raises(RedisUnavailable, match="Nothing is sure yet: nothing was written"):
            run(file(lines(person(1))), "--timeout", "1.2")
    finally:
        client.config_set("maxmemory", 0)


def test_no_profile_field_is_printed(run, file):
    broken = b'\n{"email": "eve@example.com"\n'
    result = run(file(lines(person(1, enter="soon"), person(2)) + broken + lines(person(3))))

    assert "@example.com" not in result.output


LAYOUTS = {
    "lines": b"".join(orjson.dumps(person(n)) + b"\n" for n in range(100)),
    "array": orjson.dumps([person(n) for n in range(100)]),
}
"""A sample; `tests/unit/producer/sources/test_cuts.py` cuts each layout anywhere."""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("share", "piped"), [(0.0, True), (0.5, False), (0.999, True)])
def test_a_file_that_is_cut_off_is_told_and_what_stands_before_is_sent(
    run, file, client, *, layout, share, piped
):
    content = LAYOUTS[layout][: 1 + int(share * len(LAYOUTS[layout]))].rstrip(b"\n }")
    content = content or b"{"

    with pytest.raises(SourceDamaged, match="is damaged") as told:
        run(*(("-",) if piped else (file(content),)), stdin=content if piped else None)

    assert (told.value.exit_code, "@example.com" in told.value.message) == (1, False)
    whole = int(share * 100)
    assert whole - 1 <= len(entries(client)) <= whole


def test_a_dry_run_tells_that_a_file_is_cut_off_too(run, file, client):
    with pytest.raises(SourceDamaged, match="would be sent"):
        run(file(LAYOUTS["array"][:-1]), "--dry-run")

    assert client.keys("*") == []


OLD = "2001-01-01T00:00:00Z"
"""Older than the ten years that the ledger of these tests remembers."""


def test_events_older_than_the_ledger_are_kept_unless_a_person_insists(run, file, client):
    source = file(lines(person(1), person(2, enter=OLD), person(3, enter=OLD)))

    dry = run(source, "--dry-run")
    sent = run(source)

    assert (dry.exit_code, sent.exit_code) == (1, 1)
    assert "Older than what the ledger remembers: 2 events" in sent.stderr
    assert "--older-than-ledger" in dry.stderr
    assert [entry.profile["email"] for entry in entries(client)] == ["person1@example.com"]
    kept = [record.reason for record in Quarantine(client).records()]
    assert kept == ["older_than_ledger", "older_than_ledger"]
    document = orjson.loads(run(source, "--older-than-ledger", "--json").stdout)
    assert (document["accepted"], document["older_than_ledger"]) == (3, 0)

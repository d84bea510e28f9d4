"""`segrelay send` as a person calls it."""

import gzip

import orjson
import pytest
import typer
from typer.testing import CliRunner

from ops.cli.send import send
from tests.integration.producer.redis_contents import counts, entries
from tests.unit.producer.payload_samples import ENTER, wrapped
from worker.errors import RedisUnavailable, UsageWrong


def person(number, **entry):
    entries_ = [{**ENTER, **entry}]
    return wrapped(email=f"person{number}@example.com", segment_events=entries_)


@pytest.fixture
def run(configure, monkeypatch):
    """Call the command; what it raises reaches the test."""
    settings = configure()
    monkeypatch.setenv("SEGRELAY_CONFIG", str(settings.source))
    app = typer.Typer()
    app.command()(send)

    def call(*arguments, stdin=None):
        result = CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def file(tmp_path):
    def write(content, name="events.ndjson"):
        path = tmp_path / name
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
    assert {entry.lane for entry in entries(client)} == {"backfill"}


@pytest.mark.parametrize(
    "content",
    [
        orjson.dumps([person(1), person(2)]),
        orjson.dumps([person(1), person(2)], option=orjson.OPT_INDENT_2),
        b"\n".join(orjson.dumps(person(n), option=orjson.OPT_INDENT_2) for n in (1, 2)),
        b"\xef\xbb\xbf" + lines(person(1), person(2)["data"]),
    ],
    ids=["array", "pretty array", "pretty objects", "byte order mark"],
)
def test_every_layout_of_a_file_works(run, file, content):
    document = orjson.loads(run(file(content), "--json").stdout)

    assert (document["accepted"], document["refused"]) == (2, 0)


def test_an_empty_file_is_no_error_but_is_said(run, file):
    result = run(file(b""))

    assert result.exit_code == 0
    assert "holds no payloads" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"{}", mtime=0), "gzip: `zcat"),
        (b"\x28\xb5\x2f\xfd rest", "zstd"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"\x00\x01\x02", "binary zeros"),
    ],
)
def test_what_is_no_text_is_named(run, file, content, message):
    with pytest.raises(UsageWrong, match=message):
        run(file(content))


def test_a_file_that_is_none_is_named(run, tmp_path):
    with pytest.raises(UsageWrong, match="there is no such file"):
        run(tmp_path / "missing.ndjson")
    with pytest.raises(UsageWrong, match="is a directory"):
        run(tmp_path)


@pytest.mark.parametrize("arguments", [("--lane", "fast"), ("--job", "A b"), ("--timeout", "soon")])
def test_wrong_options_are_refused_before_anything_is_sent(run, file, client, arguments):
    with pytest.raises(UsageWrong):
        run(file(lines(person(1))), *arguments)

    assert entries(client) == []


def test_a_job_sent_again_adds_nothing(run, file, client):
    source = file(lines(*(person(number) for number in range(2_500))))

    first = run(source, "--job", "load", "--json")
    second = run(source, "--job", "load", "--json")

    assert orjson.loads(first.stdout)["accepted"] == 2_500
    assert orjson.loads(second.stdout)["accepted"] == 0
    assert "were in Redis already" in second.stderr
    assert counts(client)["job|load|accepted"] == 2_500


def test_two_files_of_one_job_are_both_sent(run, file, client):
    run(file(lines(person(1)), "one"), "--job", "load")
    run(file(lines(person(2)), "two"), "--job", "load")

    assert len(entries(client)) == 2


def test_waiting_for_a_worker_that_does_not_run_ends_at_the_timeout(run, file):
    result = run(file(lines(person(1))), "--wait", "--timeout", "0.3")

    assert result.exit_code == 1
    assert "1 deliveries still wait" in result.stderr


def test_waiting_ends_when_nothing_waits(run, file):
    assert run(file(lines(7)), "--wait").exit_code == 0


def test_a_full_redis_is_said_after_the_timeout(run, file, client):
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    try:
        with pytest.raises(
            RedisUnavailable, match="Nothing is surely in Redis yet, and nothing behind it"
        ):
            run(file(lines(person(1))), "--timeout", "1.2")
    finally:
        client.config_set("maxmemory", 0)


def test_no_profile_field_is_printed(run, file):
    result = run(file(lines(person(1, enter="soon"), person(2)) + b'\n{"email": "eve@example.com"'))

    assert "@example.com" not in result.output

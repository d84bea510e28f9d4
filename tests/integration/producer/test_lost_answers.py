"""Promise 2 where Redis' answer is lost: what a job publishes again is in Redis exactly once."""

import hashlib
from collections import Counter
from contextlib import closing
from urllib.parse import urlsplit

import orjson
import pytest

from segrelay.ops.kept import QuarantinedRecords
from segrelay.ops.state.waiting import EVERYTHING
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.contract.redis import accept
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.errors import RedisUnavailable
from tests.commands import called
from tests.integration.producer.cutting_proxy import CuttingProxy
from tests.integration.producer.redis_contents import counts, entries
from tests.unit.producer.payload_samples import person

ACCEPT = hashlib.sha1(accept.SCRIPT.encode(), usedforsecurity=False).hexdigest().encode()
END_OF_TIME = "9999-12-31T23:59:59-05:00"


def texts(*payloads):
    return [orjson.dumps(payload) for payload in payloads]


@pytest.fixture
def proxy(redis_url):
    with closing(CuttingProxy(redis_url)) as running:
        yield running


@pytest.fixture
def publisher_through(proxy, configure, waker, client):
    client.script_load(accept.SCRIPT)
    with closing(connect(proxy.url)) as through:
        yield Publisher(through, configure(), waker=waker)


@pytest.fixture
def publisher(publisher_of, configure):
    """Another process, which has no proxy in its way and knows nothing yet."""
    return publisher_of(configure())


def emails(client):
    return Counter(entry.profile["email"] for entry in entries(client))


def test_what_a_lost_answer_left_in_the_quarantine_is_placed_by_the_repetition(
    proxy, publisher_through, publisher, client
):
    known = [person(number, id=None) for number in range(29)]
    not_known_yet = person(7, slug=None, enter="2026-11-01T09:00:00Z")
    chunk = texts(*known, not_known_yet)
    proxy.cut(ACCEPT, then=lambda: publisher.publish(texts(person(100))))

    with pytest.raises(RedisUnavailable):
        publisher_through.publish(chunk, PublishOptions(job="load"), position=30, source="file")
    kept = [record.reason for record in Quarantine(client).records()]
    again = publisher.publish(chunk, PublishOptions(job="load"), position=30, source="file")

    assert (proxy.cuts, kept) == (1, ["unknown_audience"])
    assert (again.accepted, again.repeated, again.refused) == (1, 29, 0)
    assert emails(client) == Counter(
        ["person7@example.com", *(f"person{number}@example.com" for number in (*range(29), 100))]
    )
    assert counts(client)["job|load|accepted"] == 30


def test_what_came_to_a_part_of_the_partitions_is_completed(proxy, publisher_through, client):
    chunk = texts(*(person(number, pad="x" * 1_000) for number in range(2_500)))
    publisher_through.publish(texts(person(9_999)))
    proxy.cut(ACCEPT)

    with pytest.raises(RedisUnavailable):
        publisher_through.publish(chunk, PublishOptions(job="load"), position=2_500, source="file")
    written = len(entries(client)) - 1
    again = publisher_through.publish(
        chunk, PublishOptions(job="load"), position=2_500, source="file"
    )
    third = publisher_through.publish(
        chunk, PublishOptions(job="load"), position=2_500, source="file"
    )

    assert 0 < written < 2_500
    assert (again.accepted, again.repeated) == (2_500 - written, written)
    assert (third.accepted, third.repeated) == (0, 2_500)
    assert set(emails(client).values()) == {1}


def test_of_what_is_cut_off_amid_one_step_nothing_is_written(proxy, publisher_through, client):
    chunk = texts(*(person(number) for number in range(60)))
    publisher_through.publish(texts(person(9_999)))
    proxy.cut(ACCEPT, share=0.4)

    with pytest.raises(RedisUnavailable):
        publisher_through.publish(chunk, PublishOptions(job="load"), position=60, source="file")
    written = len(entries(client)) - 1
    again = publisher_through.publish(chunk, PublishOptions(job="load"), position=60, source="file")

    assert (written, again.accepted, again.repeated) == (0, 60, 0)


def test_a_user_of_redis_who_may_send_no_multi_is_told_so(redis_url, configure, waker, client):
    client.acl_setuser("narrow", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all"])
    client.execute_command("ACL", "SETUSER", "narrow", "-multi")
    address = urlsplit(redis_url)
    url = f"redis://narrow:p@{address.hostname}:{address.port}/0"
    try:
        with (
            closing(connect(url)) as narrow,
            pytest.raises(RedisUnavailable, match="widen its ACL"),
        ):
            Publisher(narrow, configure(), waker=waker).publish(texts(person(1)))
    finally:
        client.acl_deluser("narrow")


def test_nothing_is_delivered_before_what_was_refused_is_kept(proxy, publisher_through, client):
    proxy.cut(b"{quarantine}:texts", share=0.0)

    with pytest.raises(RedisUnavailable):
        publisher_through.publish(
            texts(person(1), person(2, enter="soon")), PublishOptions(job="load"), position=2
        )

    assert entries(client) == []


def test_a_refused_event_of_a_chunk_that_is_long_past_stays_in_the_quarantine(
    publisher, client, configure
):
    refused = person(7, slug=None, enter="2026-11-01T09:00:00Z")
    first = texts(*(person(number, id=None) for number in range(30)), refused)
    second = texts(*(person(number, id=None) for number in range(30, 60)))
    publisher.publish(first, PublishOptions(job="load"), position=31, source="file")
    publisher.publish(second, PublishOptions(job="load"), position=61, source="file")
    publisher.publish(texts(person(100)))

    from_the_start = publisher.publish(
        first, PublishOptions(job="load"), position=31, source="file"
    )
    placed = sum(QuarantinedRecords(client, configure()).replay(EVERYTHING).steps())

    assert from_the_start.accepted + from_the_start.repeated == 31
    assert (placed, len(entries(client))) == (1, 62 + from_the_start.accepted)


def test_one_impossible_date_and_one_lost_answer_cost_nothing_else(
    proxy, configure, client, tmp_path, monkeypatch
):
    settings = configure(url=proxy.url)
    monkeypatch.setenv("SEGRELAY_CONFIG", str(settings.source))
    lines = [person(number) for number in range(30)]
    lines[17] = person(17, enter=END_OF_TIME)
    file = tmp_path / "thirty.ndjson"
    file.write_bytes(b"\n".join(texts(*lines)))
    proxy.cut(ACCEPT)

    result = called("send", file, "--json")

    document = orjson.loads(result.stdout)
    [problem] = document["problems"]
    assert (result.exit_code, proxy.cuts) == (0, 1)
    assert (document["accepted"], document["refused"]) == (29, 1)
    assert (problem["line"], problem["reason"]) == (18, "bad_time")
    assert set(emails(client)) == {f"person{n}@example.com" for n in range(30) if n != 17}
    assert [record.reason for record in Quarantine(client).records()] == ["bad_time"]

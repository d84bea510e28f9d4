"""Promise 2 where Redis' answer is lost: what is published again is in Redis exactly once."""

from collections import Counter
from contextlib import closing
from urllib.parse import urlsplit

import orjson
import pytest

from segrelay.ops.kept import QuarantinedRecords
from segrelay.ops.send import Deadline, Sending
from segrelay.ops.state.waiting import EVERYTHING
from segrelay.ops.terminal.serving import Interruption
from segrelay.producer.events.payloads import Payload
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.contract.redis import accept
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.errors import RedisUnavailable
from tests.integration.producer.redis_contents import counts, entries
from tests.interruptions import Case, interrupted_anywhere
from tests.unit.producer.payload_samples import person

LOAD = PublishOptions(job="load")


def texts(*payloads):
    return [orjson.dumps(payload) for payload in payloads]


def emails(client):
    return Counter(entry.profile["email"] for entry in entries(client))


def test_a_chunk_whose_writes_are_interrupted_anywhere_is_in_redis_once(
    configure, publisher_of, waker, client, redis_url
):
    """One event is refused until somebody tells, meanwhile, which audience it is of."""
    settings = configure()
    known = (person(number, id=None, pad="x" * 1_000) for number in range(2_500))
    chunk = texts(person(2_500, slug=None, enter="2026-11-01T09:00:00Z"), *known)

    def publish(client):
        publisher = Publisher(client, settings, waker=waker)
        publisher.publish(chunk, LOAD, position=2_501, source="file")

    accepted = set()

    def holds():
        accepted.add(counts(client).get("job|load|accepted", 0))
        kept = [record.reason for record in Quarantine(client).records()]
        assert kept == ["unknown_audience"] or not entries(client)

    case = Case(
        publish,
        again=publish,
        meanwhile=lambda: publisher_of(settings).publish(texts(person(9_999))),
        truth=lambda: (emails(client), counts(client)["job|load|accepted"]),
        holds=holds,
    )
    interrupted_anywhere(client, redis_url, case)

    assert set(emails(client).values()) == {1}
    assert counts(client)["job|load|accepted"] == 2_501
    assert {0, 2_500, 2_501} < accepted, "some died when a part of the partitions had theirs"


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


def test_a_refused_event_of_a_chunk_that_is_long_past_stays_in_the_quarantine(
    publisher, client, configure
):
    refused = person(7, slug=None, enter="2026-11-01T09:00:00Z")
    first = texts(*(person(number, id=None) for number in range(30)), refused)
    second = texts(*(person(number, id=None) for number in range(30, 60)))
    publisher.publish(first, LOAD, position=31, source="file")
    publisher.publish(second, LOAD, position=61, source="file")
    publisher.publish(texts(person(100)))

    from_the_start = publisher.publish(first, LOAD, position=31, source="file")
    placed = sum(QuarantinedRecords(client, configure()).replay(EVERYTHING).steps())

    assert from_the_start.accepted + from_the_start.repeated == 31
    assert (placed, len(entries(client))) == (1, 62 + from_the_start.accepted)


class ForgetfulRedis(Redis):
    """Its first answer to an EXEC is lost."""

    has_lost = False

    def run_pipeline(self, pipe):
        answers = super().run_pipeline(pipe)
        if pipe.transaction and not self.has_lost:
            self.has_lost = True
            raise RedisUnavailable("It did not answer.")
        return answers


def test_what_is_sent_is_sent_again_by_itself_where_an_answer_was_lost(
    configure, waker, client, redis_url
):
    client.script_load(accept.SCRIPT)
    payloads = [Payload(text, orjson.loads(text)) for text in texts(*map(person, range(30)))]
    with closing(ForgetfulRedis.from_url(redis_url, protocol=2)) as forgetful:
        publisher = Publisher(forgetful, configure(), waker=waker)
        sending = Sending(publisher, "-", PublishOptions(), Deadline(), Interruption(), 60.0)

        sending.run(iter([payloads]), lambda _: None)

        assert forgetful.has_lost
    assert sending.published.accepted == 30
    assert set(emails(client)) == {f"person{n}@example.com" for n in range(30)}

"""Who may work with a Redis whose data is sealed, and with one whose data stands open."""

from contextlib import closing, contextmanager
from functools import partial

import pytest

from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract import keys
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.claim import claim, compare, mismatches
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.instance import InstanceWatch
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import ConfigurationInvalid, RedisMismatch
from tests.configuration import configuration, insider, table, trigger
from tests.interruptions import InterruptedRedis

KEY, OTHER = f"{'A' * 43}=", f"{'B' * 42}A="
EVENT = (
    b'{"data": {"email": "ann.planted@example.com", "segment_events":'
    b' [{"slug": "vip", "event": "enter", "enter": "2026-11-24T10:00:00Z"}]}}'
)


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def configured(tmp_path, redis_url):
    """Return the settings of a process with these keys; none = it has no table of them."""

    def configured(*own):
        (tmp_path / "templates").mkdir(exist_ok=True)
        (tmp_path / "templates" / "any.jsonnet").write_text("{}")
        tables = [insider(), trigger("vip-enter"), *([table("protection", key=own)] if own else ())]
        path = tmp_path / "segrelay.toml"
        path.write_text(configuration(*tables, redis=redis_url, partitions=2))
        return load_settings(path, environ={})

    return configured


def publish(client, settings):
    publisher = Publisher(client, settings, waker=SilentWaker())
    return publisher.publish([EVENT], PublishOptions())


def test_a_process_without_the_key_is_refused_and_writes_nothing(client, configured):
    publish(client, configured(KEY))
    before = client.dbsize()

    for begin in (claim, compare, publish):
        with pytest.raises(RedisMismatch, match=r"sealed. Set \[protection\] key"):
            begin(client, configured())
    assert client.dbsize() == before
    assert "sealed" in mismatches(client, configured())[0]


def test_a_redis_in_use_stays_open(client, configured):
    publish(client, configured())
    before = client.dbsize()

    for begin in (claim, compare, publish):
        with pytest.raises(RedisMismatch, match="begin with an empty Redis"):
            begin(client, configured(KEY))
    assert client.dbsize() == before
    assert client.get(keys.PROTECTION) is None


def test_a_wrong_key_is_refused_and_both_are_named(client, configured):
    publish(client, configured(KEY))

    with pytest.raises(RedisMismatch, match=r"with the key [0-9a-f]{8}, .* has [0-9a-f]{8}:"):
        claim(client, configured(OTHER))


def test_a_key_that_is_not_set_is_named(client, configured):
    settings = configured("env:NOT_SET_ANYWHERE")

    with pytest.raises(ConfigurationInvalid, match="NOT_SET_ANYWHERE"):
        claim(client, settings)
    assert not client.dbsize()


def test_what_is_published_names_nobody(client, configured):
    publish(client, configured(KEY))

    (stream,) = (name for name in client.keys("*") if b"s:live" in name)
    ((_, fields),) = client.xrange(stream)
    assert b"planted" not in fields[b"p"]
    assert keys.digest_of("email:ann.planted@example.com").hex().encode() in fields[b"h"]
    PROTECTION.off()
    assert keys.digest_of("email:ann.planted@example.com").hex().encode() not in fields[b"h"]


@contextmanager
def standing_before_it_claims(url, meanwhile):
    """Give a client that looks, and then stands still until others have done something."""
    with closing(InterruptedRedis.from_url(url, protocol=2)) as client:
        client.at, client.before = 2, meanwhile
        yield client


@pytest.mark.parametrize(("first", "second"), [((KEY,), ()), ((), (KEY,))])
def test_of_two_that_begin_at_once_the_first_write_decides(
    client, redis_url, configured, first, second
):
    settings = configured(*second)
    begin = partial(claim, client, configured(*first))
    with standing_before_it_claims(redis_url, begin) as standing, pytest.raises(RedisMismatch):
        claim(standing, settings)
    assert (client.get(keys.PROTECTION) is not None) is bool(first)


def test_two_with_the_key_that_begin_at_once_have_one_secret(client, redis_url, configured):
    settings = configured(KEY)

    def begin():
        claim(client, settings)
        PROTECTION.off()

    with standing_before_it_claims(redis_url, begin) as standing:
        claim(standing, settings)
    digest = keys.digest_of("email:ann@example.com")

    PROTECTION.off()
    compare(client, settings)
    assert keys.digest_of("email:ann@example.com") == digest


def test_a_redis_that_came_back_empty_gets_the_secret_of_its_processes(client, configured):
    settings = configured(KEY)
    claim(client, settings)
    watch = InstanceWatch(client, settings)
    watch.look()
    digest = keys.digest_of("email:ann@example.com")

    client.flushall()
    watch.look()

    PROTECTION.off()
    claim(client, settings)
    assert keys.digest_of("email:ann@example.com") == digest

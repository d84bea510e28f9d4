"""The wake-up with Celery's real broker."""

import socket
import time

import orjson
import pytest
from celery.app.defaults import DEFAULTS
from kombu.transport.redis import Channel

from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import CeleryWaker
from segrelay.worker.contract.celery import broker_options, rebuild_message
from segrelay.worker.contract.settings import load_settings
from tests.integration.producer.redis_contents import counts
from tests.unit.producer.payload_samples import wrapped
from tests.waiting import allowed


def test_a_wake_up_leaves_a_message_in_the_queue(configure, client):
    waker = CeleryWaker(configure())

    waker.wake([("insider", 3)], queue="backfill")
    waker.wake([("insider", 4)], queue="live")

    [message] = client.lrange("segrelay.live", 0, -1)
    headers = orjson.loads(message)["headers"]
    assert client.llen("segrelay.backfill") == 1
    assert (headers["task"], headers["argsrepr"]) == (
        "segrelay.drain",
        "insider, partition 4, live",
    )
    assert headers["ignore_result"] is True


def publish(client, settings, *people):
    publisher = Publisher(client, settings, waker=CeleryWaker(settings))
    return publisher.publish([orjson.dumps(wrapped(email=person)) for person in people])


def rebuilt(client, queue="segrelay.live"):
    return [rebuild_message(orjson.loads(each), queue) for each in client.lrange(queue, 0, -1)]


def test_what_is_accepted_leaves_its_wake_up_with_the_same_write(configure, client):
    settings = configure()
    publish(client, settings, "ann@example.com")  # it also claims this Redis
    client.delete(*client.keys("*wakeup"), "segrelay.live")
    before = client.info("commandstats")["cmdstat_exec"]["calls"]

    published = publish(client, settings, *(f"person{n}@example.com" for n in range(200)))

    assert published.woken == ()
    assert client.info("commandstats")["cmdstat_exec"]["calls"] == before + 1
    messages = rebuilt(client)
    shown = {each["headers"]["argsrepr"] for each in messages}
    assert shown == {f"insider, partition {number}, live" for number in range(16)}
    assert len({each["headers"]["id"] for each in messages}) == len(messages) == 16


def test_a_queue_that_takes_no_message_undoes_nothing_of_what_was_accepted(configure, client):
    client.set("segrelay.live", "no list")

    published = publish(client, configure(), "ann@example.com")

    assert (published.accepted, len(published.woken)) == (1, 1)
    assert counts(client) == {"accepted|vip-enter": 1}


def test_a_write_leaves_no_wake_up_where_another_redis_is_the_broker(configure, client):
    elsewhere = {"SEGRELAY_BROKER_URL": "redis://127.0.0.1:1/0"}
    settings = load_settings(configure().source, environ=elsewhere)

    published = publish(client, settings, "ann@example.com")

    assert (published.accepted, len(published.woken)) == (1, 1)
    assert client.llen("segrelay.live") == 0


def test_a_full_redis_takes_wake_ups(configure, client):
    waker = CeleryWaker(configure())
    client.config_set("maxmemory", 1)

    try:
        waker.wake([("insider", 1)], queue="live")
    finally:
        client.config_set("maxmemory", 0)

    assert client.llen("segrelay.live") == 1


@pytest.mark.parametrize("is_there", [False, True], ids=["dead", "silent"])
def test_a_broker_that_does_not_answer_costs_one_timeout_and_raises_nothing(configure, is_there):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if is_there else 1
        waker = CeleryWaker(configure(url=f"redis://127.0.0.1:{port}/0"))
        begun = time.monotonic()

        for partition in range(16):
            waker.wake([("insider", partition)], queue="live")

    assert time.monotonic() - begun < allowed(3)


def test_a_broker_that_comes_back_gets_messages_again(configure, client):
    clock = [0.0]
    waker = CeleryWaker(configure(), now=lambda: clock[0])
    waker.wake([("insider", 1)], queue="live")
    client.client_kill_filter(_type="normal", skipme=True)
    waker.wake([("insider", 2)], queue="live")

    clock[0] = 60.0
    waker.wake([("insider", 3)], queue="live")

    assert client.llen("segrelay.live") >= 2


def test_every_option_is_one_that_celery_and_kombu_know(configure):
    options = broker_options(configure())

    assert set(options) <= set(DEFAULTS)
    assert set(options["broker_transport_options"]) <= set(Channel.from_transport_options)

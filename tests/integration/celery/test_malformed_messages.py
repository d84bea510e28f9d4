"""What others leave in the broker: a worker refuses it, and goes on."""

import base64
import json

from celery import signature

from segrelay.worker.contract.celery import DRAIN_TASK, QUEUES
from segrelay.worker.contract.processes import read_processes
from tests.integration.celery.nodes import Node, live, send
from tests.waiting import until


def body(*args):
    return base64.b64encode(json.dumps([args, {}, {}]).encode()).decode()


def message(**changes):
    return {
        "body": body("one", 1),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": DRAIN_TASK, "id": "0b1c"},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "a",
            "delivery_info": {"exchange": "segrelay", "routing_key": QUEUES[0]},
        },
    } | changes


MALFORMED = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"__type__": "decimal", "__value__": "x"}',
    *(
        json.dumps(each).encode()
        for each in (
            [],
            7,
            {},
            message(body=base64.b64encode(b"[]").decode()),
            message(body="!!"),
            message(**{"content-type": "application/data"}),
            message(**{"content-type": None}),
            message(headers=None),
            message(headers={"task": "celery.chord_unlock", "id": "1"}),
            message(headers={"task": "other", "id": "1"}),
            message(properties={}),
        )
    ),
]


def test_a_malformed_message_is_refused_once_and_ends_nobody(configuration, broker, app):
    for queue in QUEUES:
        broker.client.rpush(queue, *MALFORMED)
    refused = 2 * len(MALFORMED) + 1

    with Node(configuration, "--concurrency=2") as node:
        until(lambda: len(node.events("message.refused")) == refused - 1)
        broker.client.publish("/0.celery.pidbox", "[]")
        until(lambda: len(node.events("message.refused")) == refused)
        send(app, *live("one", 3))
        until(broker.drained)
        until(lambda: [one.refused_messages for one in read_processes(broker.client)] == [refused])
        until(lambda: not broker.client.exists(*QUEUES, "segrelay.unacked"))
        assert node.process.poll() is None

    assert "Traceback" not in node.log


HEADERS = [
    {"timelimit": [0.001, 0.001]},
    {"timelimit": "x"},
    {"eta": "2999-01-01T00:00:00"},
    {"eta": "junk"},
    {"expires": "2000-01-01T00:00:00"},
    {"expires": 7},
    {"retries": "many", "shadow": ["x"], "compression": "gzip", "stamped_headers": 7},
]


def test_a_header_or_a_callback_from_outside_does_nothing(configuration, broker):
    callback = signature(DRAIN_TASK, ["two", 2])
    embed = {"callbacks": [callback], "chain": [callback], "chord": None, "errbacks": [callback]}
    parts = json.dumps([["one", 1], {}, embed]).encode()
    hostile = [message(body=base64.b64encode(parts).decode())]
    for number, headers in enumerate(HEADERS, 2):
        named = {"task": DRAIN_TASK, "id": f"0b{number}"} | headers
        hostile.append(message(body=body("one", number), headers=named))
    broker.client.lpush(QUEUES[0], *map(json.dumps, hostile))

    with Node(configuration, "--concurrency=2", behaviour={"seconds": 0.2}):
        until(lambda: len(broker.drained()) == len(hostile))
        broker.client.lpush(QUEUES[0], json.dumps(message(body=body("one", 9))))
        until(lambda: len(broker.drained()) == len(hostile) + 1)

    rows = sorted((row["destination"], row["partition"]) for row in broker.drained())
    assert rows == [("one", number) for number in range(1, 10)]

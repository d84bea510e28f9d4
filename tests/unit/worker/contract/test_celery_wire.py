"""Which Celery messages are obeyed, and what of them."""

import base64
import json

import pytest

from segrelay.worker.contract.celery import DRAIN_TASK, QUEUES, SYNC_TASK, rebuild_message

LIVE, BACKFILL = QUEUES


def body(*args, kwargs=None, embed=None):
    return base64.b64encode(json.dumps([args, kwargs or {}, embed or {}]).encode()).decode()


def message(**changes):
    return {
        "body": body("insider", 3),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": DRAIN_TASK, "id": "0b1c-2d"},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "a",
            "delivery_info": {"exchange": "other", "routing_key": "elsewhere"},
        },
    } | changes


def test_a_message_is_obeyed_for_its_task_its_arguments_and_its_id_alone():
    hostile = {
        "timelimit": [0.001, 0.001],
        "eta": "2999-01-01T00:00:00",
        "expires": "2000-01-01T00:00:00",
        "retries": 99,
        "group": "g",
        "shadow": "another",
        "argsrepr": "person@example.com",
        "compression": "gzip",
        "stamps": {"a": 1},
    }
    embed = {"callbacks": [{"task": DRAIN_TASK}], "chord": {"task": DRAIN_TASK}}

    rebuilt = rebuild_message(
        message(
            body=body("insider", 3, kwargs={"x": 1}, embed=embed),
            headers=message()["headers"] | hostile,
        ),
        LIVE,
    )

    assert rebuilt["headers"] == {
        "lang": "py",
        "task": DRAIN_TASK,
        "id": "0b1c-2d",
        "root_id": "0b1c-2d",
        "argsrepr": "insider, partition 3, live",
        "kwargsrepr": "",
        "ignore_result": True,
    }
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert json.loads(base64.b64decode(rebuilt["body"])) == [
        ["insider", 3],
        {},
        nothing,
    ]
    assert rebuilt["properties"]["delivery_info"] == {
        "exchange": "segrelay",
        "routing_key": LIVE,
    }
    assert rebuilt["properties"]["delivery_tag"] != "a"


@pytest.mark.parametrize(
    "received",
    [
        [],
        {},
        message(body="[]"),
        message(body="!!"),
        message(body=None),
        message(body=base64.b64encode(b"\xff").decode()),
        message(body=base64.b64encode(b"[]").decode()),
        message(body=base64.b64encode(b"[" * 5_000).decode()),
        message(body=body("insider", 3) + "A" * 20_000),
        message(body=body("insider")),
        message(body=body("insider", "3")),
        message(body=body("insider", True)),
        message(body=body(3, "insider")),
        message(**{"content-type": "application/x-python-serialize"}),
        message(**{"content-encoding": "binary"}),
        message(headers=None),
        message(headers={"task": "celery.chord_unlock", "id": "1"}),
        message(headers={"task": DRAIN_TASK}),
        message(headers={"task": DRAIN_TASK, "id": "a b"}),
        message(headers={"task": SYNC_TASK, "id": "1"}),
        message(headers={"task": [], "id": "1"}),
        message(properties=None),
        message(properties={"body_encoding": "rot13"}),
    ],
)
def test_anything_else_is_refused_and_the_reason_quotes_nothing_of_it(received):
    with pytest.raises(ValueError, match=r"^[a-zA-Z64' ]+$"):
        rebuild_message(received, LIVE)

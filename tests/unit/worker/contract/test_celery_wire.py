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

    headers = message()["headers"] | hostile
    received = message(body=body("insider", 3, kwargs={"x": 1}, embed=embed), headers=headers)
    rebuilt, plain = rebuild_message(received, LIVE), rebuild_message(message(), LIVE)
    tags = {each["properties"].pop("delivery_tag") for each in (rebuilt, plain)}

    assert rebuilt == plain
    assert len(tags | {"a"}) == 3
    assert (plain["headers"]["task"], plain["headers"]["id"]) == (DRAIN_TASK, "0b1c-2d")
    assert json.loads(base64.b64decode(plain["body"]))[0] == ["insider", 3]
    assert plain["properties"]["delivery_info"] == {"exchange": "segrelay", "routing_key": LIVE}


@pytest.mark.parametrize(
    "received",
    [
        [],
        message(body="[]"),
        message(body="!!"),
        message(body=base64.b64encode(b"\xff").decode()),
        message(body=base64.b64encode(b"[]").decode()),
        message(body=base64.b64encode(b"[" * 5_000).decode()),
        message(body=body("insider", 3) + "A" * 20_000),
        message(body=body("insider", "3")),
        message(body=body("insider", True)),
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

"""Several destinations, and both membership models, from one stream of events."""

import time
from collections import Counter

import pytest

from segrelay.sandbox.people import AUDIENCES, Happening, truth
from segrelay.worker.core.backoff import TRIES_ALONE
from tests.journeys.endpoint import Endpoint
from tests.journeys.play import (
    SHORT,
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.nightly import amount
from tests.waiting import patient, until

REFUSED = "person7@example.com"
ENDPOINTS = """\
[destinations.crm]
api = "http"
base_url = "{url}"
rate = "60000/min"
[destinations.crm.http]
method = "PUT"
results = 200
networks = ["127.0.0.0/8"]
failures = {{ at = "errors" }}
[triggers.crm-enter]
destination = "crm"
audiences = ["*"]
on = "enter"
template = "http/event.jsonnet"
url = "/events"
[triggers.crm-exit]
destination = "crm"
audiences = ["*"]
on = "exit"
template = "http/event.jsonnet"
url = "/events"

[destinations.hook]
api = "http"
base_url = "{url}"
rate = "60000/min"
[destinations.hook.http]
networks = ["127.0.0.0/8"]
[triggers.hook]
destination = "hook"
audiences = ["vip"]
on = "enter"
template = "http/event.jsonnet"
url = "/hook"
"""


class Receiver:
    """Refuses one person in arrays, and has no time for some single events at their first try."""

    def __init__(self):
        self.seen = set()

    def respond(self, came):
        if came.path == "/events":
            return 200, {"errors": [
                {"index": at, "message": "no such customer"}
                for at, event in enumerate(came.body)
                if event["person"]["email"] == REFUSED
            ]}  # fmt: skip
        is_new = came.body["id"] not in self.seen
        self.seen.add(came.body["id"])
        return (503, {}) if is_new and came.body["id"][0] in "01" else (200, {})


def held_by(endpoint):
    """Return who is where, as one knows it who takes every event that comes as the newest."""
    held = {}
    for came, _ in endpoint.came:
        for event in came.body if came.path == "/events" else ():
            inside = held.setdefault(event["person"]["email"], {})
            inside[event["audience"]["slug"]] = event["type"] == "audience.enter"
    return {
        email: sorted(slug for slug, is_in in inside.items() if is_in)
        for email, inside in held.items()
        if any(inside.values())
    }


def test_an_endpoint_of_anybodys_gets_beside_insider_what_insider_gets(tmp_path):
    happened, sent = invent(*amount((600, 150), nightly=(3_000, 300)), seed=71)
    with (
        Endpoint(Receiver().respond) as endpoint,
        Rig(tmp_path, more=ENDPOINTS.format(url=endpoint.url), delivery_lines=SHORT) as rig,
        watched(rig),
    ):
        start_worker(rig)
        send(rig, lines(sent))
        until(lambda: status_of(rig)["waiting"] == 0, 120)

        status = status_of(rig)
        assert rig.memberships() == truth(happened)
        # Whose events are refused is told nothing in order: nothing of them was delivered.
        held = held_by(endpoint)
        held.pop(REFUSED, None)
        assert held == {who: where for who, where in truth(happened).items() if who != REFUSED}
        _one_person_is_refused_and_nobody_else(endpoint, status)
        _each_attempt_of_a_delivery_has_one_key(endpoint)


def _one_person_is_refused_and_nobody_else(endpoint, status):
    arrays = [came for came, _ in endpoint.came if came.path == "/events"]
    refused = sum(event["person"]["email"] == REFUSED for came in arrays for event in came.body)
    assert refused
    assert status["dead_by_reason"] == {"refused": refused}
    assert {came.method for came in arrays} == {"PUT"}
    assert max(len(came.body) for came in arrays) > 1


def _each_attempt_of_a_delivery_has_one_key(endpoint):
    hooks = [(came, status) for came, status in endpoint.came if came.path == "/hook"]
    tries = Counter(came.body["id"] for came, _ in hooks)
    keys = {(came.body["id"], came.headers["idempotency-key"]) for came, _ in hooks}
    put_off = {came.body["id"] for came, status in hooks if status == 503}
    assert put_off
    repeated = {each for each, times in tries.items() if times > 1}
    assert put_off <= repeated
    # A process that gets no turn for longer than its lease has sent what another one sends again.
    assert len(repeated - put_off) <= patient(1) - 1
    assert len(keys) == len(tries) == len({key for _, key in keys})


FLAGS = """\
[triggers.flag-enter]
destination = "insider"
audiences = ["*"]
on = "enter"
template = "insider/flag-enter.jsonnet"
url = "/api/user/v1/upsert"
[triggers.flag-exit]
destination = "insider"
audiences = ["*"]
on = "exit"
template = "insider/flag-exit.jsonnet"
url = "/api/user/v1/upsert"
"""
FLAG_OF = {audience: f"lytics_in_{audience.replace('-', '_')}" for audience in AUDIENCES}


def flagged(rig):
    """Return who is where by the sandbox's boolean attributes."""
    held = {}
    for profile in rig.sandbox.get("profiles"):
        [email] = [key[6:] for key in profile["identifiers"] if key.startswith("email:")]
        custom = profile["attributes"]["custom"]
        inside = sorted(audience for audience, flag in FLAG_OF.items() if custom.get(flag))
        if inside:
            held[email] = inside
    return held


def test_both_membership_models_end_in_the_truth(tmp_path):
    happened, sent = invent(*amount((800, 200), nightly=(6_000, 400)), seed=72)
    with Rig(tmp_path, more=FLAGS) as rig, watched(rig):
        panel = rig.sandbox.get("settings")["panel_attributes"]
        rig.sandbox.settings(
            panel_attributes={**panel, **dict.fromkeys(FLAG_OF.values(), "boolean")}
        )
        start_worker(rig)
        send(rig, lines(sent))
        rig.wait_until_empty(90)

        nothing_is_wrong(rig, happened)
        assert flagged(rig) == truth(happened)
        drops = rig.sandbox.get("drops")
        assert not [name for name in str(drops).split("'") if name in FLAG_OF.values()]


@pytest.mark.nightly
def test_an_endpoint_that_refuses_one_event_gets_it_five_times_and_then_no_more(tmp_path):
    refused: list[str] = []

    def respond(came):
        if came.body["person"]["email"] in refused:
            return 400, {"error": "unknown value"}
        return 200, {}

    with (
        Endpoint(respond) as endpoint,
        Rig(tmp_path, more=ENDPOINTS.format(url=endpoint.url), delivery_lines=SHORT) as rig,
        watched(rig),
    ):
        start_worker(rig)
        send(rig, lines([_entrance(1)]))
        until(lambda: status_of(rig)["triggers"]["hook"]["delivered"] == 1, 60)
        refused.append("person2@example.com")
        send(rig, lines([_entrance(2)]))
        waiting = until(lambda: _refused_hook(rig), 60)
        until(lambda: status_of(rig)["triggers"]["hook"]["dead"] == 1, 120)

        assert "400: unknown value" in waiting["reason"]
        hooks = [came for came, _ in endpoint.came if came.path == "/hook"]
        tried = [came for came in hooks if came.body["person"]["email"] in refused]
        assert len(tried) == TRIES_ALONE
        assert status_of(rig)["triggers"]["hook"]["state"] == "ok"


def _entrance(person):
    time_us = time.time_ns() // 1_000 - 1_000_000
    return Happening(f"person{person}@example.com", "vip", is_exit=False, time_us=time_us)


def _refused_hook(rig):
    found = status_of(rig)["triggers"]["hook"]
    return found if found["state"] == "refused" else None

"""Answers that say yes and list errors all the same, and token endpoints without a token."""

import time

from segrelay.sandbox.people import Happening
from tests.journeys.endpoint import Endpoint
from tests.journeys.play import (
    AN_HOUR_AGO_US,
    SHORT,
    Rig,
    lines,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.waiting import until

PEOPLE = 40
BAD = ("person3@example.com", "person4@example.com", "person30@example.com")
PERSON = """
local event = import "lytemplates.libsonnet";
{ email: event.get("email") }
"""
DESTINATION = """
[destinations.{name}]
api = "http"
base_url = "SANDBOX/to/{name}"
rate = "60000/min"
[destinations.{name}.http]
networks = ["127.0.0.0/8"]
results = 100
envelope = "people"
words = ["plan", "ours"]
{more}
[triggers.{name}-enter]
destination = "{name}"
audiences = ["vip"]
on = "enter"
template = "person.jsonnet"
url = "/batch"
"""
AT_ERRORS = 'failures = { at = "errors" }'
NAMED = {
    "iterable": (200, {"failCount": 1, "failedUpdates": {"invalidEmails": [BAD[0]]}}),
    "mailchimp": (200, {"errors": [{"email_address": BAD[0], "error": "not a plan"}]}),
}
UNNAMED = {
    "hubspot": (207, {"numErrors": 1, "errors": [{"message": "no plan of ours"}]}),
    "counted": (200, {"failed": 2}),
}


def happened(first, count):
    return [
        Happening(f"person{n}@example.com", "vip", is_exit=False, time_us=AN_HOUR_AGO_US + n)
        for n in range(first, first + count)
    ]


def test_who_is_named_by_an_answer_or_found_by_halving_is_dead_and_nobody_else(tmp_path):
    tables = "".join(
        DESTINATION.format(name=name, more=AT_ERRORS if name == "mailchimp" else "")
        for name in (*NAMED, *UNNAMED)
    )
    with Rig(
        tmp_path,
        more=tables,
        delivery_lines=SHORT,
        redis_lines="partitions = 2",
        templates={"person.jsonnet": PERSON},
    ) as rig:
        rules = [
            {"endpoint": name, "contains": bad, "status": status, "body": body}
            for answers, people in ((NAMED, BAD[:1]), (UNNAMED, BAD))
            for name, (status, body) in answers.items()
            for bad in people
        ]
        rig.sandbox.settings(answers=rules)
        start_worker(rig)
        with watched(rig):
            send(rig, lines(happened(0, PEOPLE)))
            until(lambda: status_of(rig)["waiting"] == 0, 120)

        status = status_of(rig)
        dead = 2 * 1 + 2 * len(BAD)
        assert status["dead_by_reason"] == {"refused": dead}, status
        assert status["delivered"] == 5 * PEOPLE - dead  # one trigger is of Insider
        assert status["resent"] > 0
        assert {one["state"] for one in status["destinations"].values()} == {"ok"}
        told = rig.command("why", BAD[0]).stdout.decode()
        assert "no plan of ours" in told
        assert "not a plan" in told


TOKEN = """
[authorizations.crm]
type = "oauth2"
token_url = "{token_url}/token"
client_id = "us"
client_secret = "a-secret-of-nobody"
"""


def test_a_token_endpoint_without_a_token_pauses_nothing_and_is_asked_again(tmp_path):
    asked, works = [], []

    def respond(came):
        asked.append(came.at)
        return 200, {"access_token": "a-token" if works else "", "expires_in": 3600}

    with Endpoint(respond) as endpoint:
        crm = DESTINATION.format(name="crm", more="")
        crm = crm.replace("rate =", 'authorization = "crm"\nrate =')
        with Rig(
            tmp_path,
            more=TOKEN.format(token_url=endpoint.url) + crm,
            delivery_lines=SHORT,
            redis_lines="partitions = 2",
            templates={"person.jsonnet": PERSON},
        ) as rig:
            start_worker(rig)
            with watched(rig):
                send(rig, lines(happened(0, PEOPLE)))
                until(lambda: len(asked) >= 3, 60)
                said = until(lambda: _reason(rig), 30)
                resumed = rig.command("resume", "crm").stdout.decode()
                until(lambda: status_of(rig)["waiting"] == PEOPLE, 60)  # those of Insider are gone
                begun, before = time.monotonic(), len(asked)
                time.sleep(5)
                assert len(asked) - before < 20 + time.monotonic() - begun
                works.append(True)
                until(lambda: status_of(rig)["waiting"] == 0, 120)

            assert "authorizations.crm.token_url answers 200 without an access_token" in said
            # Five failures in a row open the breaker; until then the trigger waits.
            assert "token_url" in resumed
            status = status_of(rig)
            assert (status["delivered"], status["dead"]) == (2 * PEOPLE, 0)


def _reason(rig):
    status = status_of(rig)
    destination = status["destinations"]["crm"]
    assert destination["state"] != "paused"
    found = f"{destination} {status['triggers']['crm-enter']}"
    return found if "token" in found else ""

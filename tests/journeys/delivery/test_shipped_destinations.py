"""The shipped templates against the sandbox, with the very tables of their page."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from segrelay.sandbox.people import Happening
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

PAGE = Path(__file__).parents[3] / "docs/destinations.md"
NAMES = ("braze", "customerio", "members", "klaviyo", "meta", "segment", "slack", "ansira")
PEOPLE = 80
"""More than Braze takes in a request; the sandbox keeps no more than 1,000 requests."""
BLOCK = re.compile(r"```toml\n(.*?)```", re.DOTALL)
TEMPLATE = re.compile(r"```jsonnet\n// templates/(\S+)\n(.*?)```", re.DOTALL)
BASE = re.compile(r'base_url = "https://[^/"]+')
SECRET = re.compile(r'"env:[A-Z_]+"')
LYTICS = '[lytics]\nbase_url = "SANDBOX"\ntoken = "a-token-of-nobody"\n'
LOCAL = 'networks = ["127.0.0.0/8"]\nwords = ["plan"]'


def tables_of(name):
    """Return the tables of a destination as the page has them, leading to the sandbox."""
    [text] = [one for one in BLOCK.findall(PAGE.read_text()) if f"[destinations.{name}]" in one]
    text = re.sub(r"  +#.*", "", text)
    text = BASE.sub(f'base_url = "SANDBOX/to/{name}', text)
    text = re.sub(r'token_url = "[^"]*"', 'token_url = "SANDBOX/_oauth2/token"', text)
    text = text.replace('url = "env:SLACK_URL"', 'url = "/services/secret"')
    text = re.sub(r'rate = "[^"]*"', 'rate = "60000/min"', text)
    text = SECRET.sub('"a-secret-of-nobody"', text)
    header = f"[destinations.{name}.http]"
    if header in text:
        return text.replace(header, f"{header}\n{LOCAL}")
    return text.replace(f"[triggers.{name}-", f"{header}\n{LOCAL}\n[triggers.{name}-", 1)


def happened():
    entered = [
        Happening(f"person{n}@example.com", "vip", is_exit=False, time_us=_at(n))
        for n in range(PEOPLE)
    ]
    left = [
        Happening(f"person{n}@example.com", "vip", is_exit=True, time_us=_at(n) + 1_000_000)
        for n in range(0, PEOPLE, 8)
    ]
    return entered, left


def _at(n):
    return AN_HOUR_AGO_US + n


REFUSALS = {
    "braze": (201, {"errors": [{"type": "the plan is unknown", "index": 0}]}),
    "customerio": (400, {"meta": {"error": "x"}, "errors": [{"detail": "the plan is unknown"}]}),
    "members": (400, {"errors": [{"detail": "the plan is unknown"}]}),
    "klaviyo": (409, {"errors": [{"detail": "the plan is unknown"}]}),
    "meta": (400, {"error": {"message": "the plan is unknown", "code": 100}}),
    "segment": (400, {"message": "the plan is unknown"}),
    "slack": (400, "the plan is unknown"),
    "ansira": (422, {"error": "x", "message": "the plan is unknown"}),
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    tables = "".join(map(tables_of, NAMES)) + LYTICS
    limits = {name: {"per_minute": 1_000} for name in NAMES}
    limits["braze"] |= {"most": 75, "at": "attributes"}
    limits["customerio"] |= {"most": 1_000, "at": "ids"}
    limits["meta"] |= {"most": 1_000, "at": "data", "taken": "events_received"}
    limits["segment"] |= {"most": 100, "at": "batch"}
    limits["ansira"] |= {"token": True}
    with Rig(
        tmp_path_factory.mktemp("shipped"),
        more=tables,
        delivery_lines=SHORT,
        redis_lines="partitions = 2",
        templates=dict(TEMPLATE.findall(PAGE.read_text())),
        sandbox_settings={"endpoints": limits},
    ) as rig:
        start_worker(rig)
        yield rig


def test_every_destination_gets_what_its_page_says(rig):
    entered, left = happened()
    wait = {"status": 429, "headers": {"Retry-After": "1"}, "times": 1}
    rig.sandbox.settings(answers=[{"endpoint": name, **wait} for name in NAMES])
    with watched(rig):
        send(rig, lines(entered))
        until(lambda: status_of(rig)["waiting"] == 0, 120)
        send(rig, lines(left))
        until(lambda: status_of(rig)["waiting"] == 0, 120)

    report = rig.sandbox.get("endpoints", last=1_000)
    assert status_of(rig)["dead"] == 0
    assert report["by_endpoint"].keys() == set(NAMES)
    assert [one for one in report["last"] if one["problem"]] == []
    assert all(statuses["429"] == 1 for statuses in report["by_endpoint"].values())
    taken = [one for one in report["last"] if one["status"] != 429]
    came = {name: [one for one in taken if one["endpoint"] == name] for name in NAMES}
    _people_are_in_arrays(came)
    # What a busy machine answers too late is sent again.
    methods = Counter(
        method for method, _ in {(one["method"], one["path"]) for one in came["members"]}
    )
    assert methods == {"PUT": PEOPLE, "DELETE": len(left)}
    assert {one["body"] for one in came["members"]} == {None}
    paths = {one["path"] for one in came["members"]}
    assert "/lists/7/members/person3@example.com" in paths  # as a server decodes it
    assert report["tokens"] == 1
    assert all(len(one["user_data"]["em"][0]) == 64 for one in _each(came, "meta", "data"))
    until(lambda: _told(rig) == PEOPLE + PEOPLE // 8, 60)


def _people_are_in_arrays(came):
    adds = [
        one for one in _each(came, "braze", "attributes") if "add" in one["lytics_computed_attr"]
    ]
    assert len(adds) == PEOPLE
    assert max(len(one["body"]["attributes"]) for one in came["braze"]) <= 75
    assert len(_each(came, "braze", "attributes")) == PEOPLE + PEOPLE // 8
    assert min(_each(came, "customerio", "ids")) == "person0@example.com"
    assert len(_each(came, "segment", "batch")) == PEOPLE + PEOPLE // 8
    assert len(came["klaviyo"]) == PEOPLE + PEOPLE // 8
    assert {one["headers"]["revision"] for one in came["klaviyo"]} == {"2026-10-15"}
    assert len(came["slack"]) == len(came["ansira"]) == PEOPLE + PEOPLE // 8


def _each(came, name, key):
    return [one for request in came[name] for one in request["body"][key]]


def _told(rig):
    return len(rig.sandbox.get("lytics/collect")["records"].get("ansira", []))


def test_the_words_of_each_destinations_refusal_are_told(rig):
    """Several people enter; who is refused is told why, and the others arrive."""
    for number, (name, (status, body)) in enumerate(REFUSALS.items()):
        first = 1_000 + 10 * number
        refused, *others = [
            f"person{first + n}@example.com" for n in range(1 if name == "braze" else 4)
        ]
        rule = {"endpoint": name, "status": status, "body": body, **_known_by(name, refused)}
        rig.sandbox.settings(answers=[rule])

        dead = status_of(rig)["dead"]
        for people in ([refused], others):
            if people:
                send(rig, lines([_entrance(who, first) for who in people]))
        if name != "slack":  # whose rule refuses everybody: then nobody dies
            until(lambda dead=dead: status_of(rig)["dead"] > dead, 90)
        why = until(lambda refused=refused: _told_why(rig, refused), 90)

        assert name in why


def _told_why(rig, who):
    told = rig.command("why", who).stdout.decode()
    return told if "the plan is unknown" in told else ""


def _entrance(who, number):
    return Happening(who, "vip", is_exit=False, time_us=_at(number))


def _known_by(name, email):
    """Return by what a rule knows a request about a person: Slack and Meta get no address."""
    match name:
        case "meta":
            return {"contains": hashlib.sha256(email.encode()).hexdigest()}
        case "members":
            return {"path": email}
        case "slack":
            return {}
        case _:
            return {"contains": email}

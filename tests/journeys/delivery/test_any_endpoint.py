"""An endpoint that none of our templates knows, with all that one can ask of its callers."""

import random
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from segrelay.ops.demo.rig import kill_group
from segrelay.sandbox.people import truth
from tests.journeys.certificates import server_context, write_certificates
from tests.journeys.endpoint import Endpoint
from tests.journeys.play import SHORT, Rig, invent, lines, send, start_worker, status_of, watched
from tests.nightly import amount
from tests.waiting import allowed, until

EVENTS, PEOPLE = amount((600, 125), nightly=(25_000, 5_000))
KILLS = amount(3, nightly=12)
SECONDS = amount(240, nightly=1_200)
LINES = amount(SHORT, nightly='lease = "2s"\nlate = "10s"\nrequest_deadline = "20s"')
"""With many people the stand-in may take longer than 2 s to work on a request that was cut."""
TOKEN_SECONDS = amount(4, nightly=20)
SEED = 119

PERSON = """
local event = import "lytemplates.libsonnet";
local details = event.get("segment_events")[0];
{ email: event.get("email"), audience: event.segSlug(), at: details[details.event] }
"""
CHANGE = """
local event = import "lytemplates.libsonnet";
{ email: event.get("email"), audience: event.segSlug(), inside: event.isEnter() }
"""
URL = """
local event = import "lytemplates.libsonnet";
"/people/" + std.split(event.get("email"), "@")[0]
"""
HEADER = 'local event = import "lytemplates.libsonnet"; event.get("email")'
TEMPLATES = {
    "person.jsonnet": PERSON,
    "change.jsonnet": CHANGE,
    "url.jsonnet": URL,
    "header.jsonnet": HEADER,
}
TABLES = """\
[authorizations.token]
type = "oauth2"
token_url = "{url}/token"
client_id = "us"
client_secret = "a-secret-of-nobody"
scope = "people"
authority = "authority.pem"
[authorizations.name]
type = "basic"
user = "us"
password = "a-password-of-nobody"
authority = "authority.pem"

[destinations.people]
api = "http"
base_url = "{url}"
authorization = "token"
rate = "60000/min"
http = {{ networks = ["127.0.0.0/8"], reason = "problems[0].text", words = ["plan"] }}
[triggers.put]
destination = "people"
audiences = ["vip"]
on = "enter"
template = "person.jsonnet"
url = {{ template = "url.jsonnet" }}
http = {{ method = "PUT", headers = {{ X-Person = {{ template = "header.jsonnet" }} }} }}
[triggers.delete]
destination = "people"
audiences = ["vip"]
on = "exit"
url = {{ template = "url.jsonnet" }}
http = {{ method = "DELETE" }}

[destinations.forms]
api = "http"
base_url = "{url}"
authorization = "name"
rate = "60000/min"
[destinations.forms.http]
networks = ["127.0.0.0/8"]
encoding = "form"
[triggers.form]
destination = "forms"
audiences = ["vip"]
on = "enter"
template = "person.jsonnet"
url = "/forms"

[destinations.batches]
api = "http"
base_url = "{url}/v1"
authorization = "name"
rate = "60000/min"
[destinations.batches.http]
networks = ["127.0.0.0/8"]
results = 50
envelope = "events"
failures = {{ at = "refused" }}
words = ["ours"]
[triggers.batch-enter]
destination = "batches"
audiences = ["*"]
on = "enter"
template = "change.jsonnet"
url = "/batch"
[triggers.batch-exit]
destination = "batches"
audiences = ["*"]
on = "exit"
template = "change.jsonnet"
url = "/batch"
"""


class StandIn:
    """Issues tokens, holds people, and checks all that comes.

    Args:
        refused: Somebody whose newest event of `vip` is an entrance: it takes none of theirs.
        refused_in_a_batch: Somebody else, whom it takes in no batch.
    """

    def __init__(self, refused, refused_in_a_batch):
        self.refused = refused
        self.refused_in_a_batch = refused_in_a_batch
        self.issued = {}
        self.asked = []
        self.refused_once = ""
        self.wrong = []
        self.people = {}
        self.forms = []
        self.batches = {}

    def respond(self, came):
        match came.path.split("/")[1:]:
            case ["token"]:
                return self._token(came)
            case ["people", _]:
                return self._person(came)
            case ["forms"]:
                return self._form(came)
            case ["v1", "batch"]:
                return self._batch(came)
        self.wrong.append(came.path)
        return 404, {}

    def _token(self, came):
        form = {name: text for name, [text] in parse_qs(came.raw.decode()).items()}
        self.asked.append(form)
        token = f"token-{len(self.asked)}"
        self.issued[token] = came.at
        return 200, {"access_token": token, "expires_in": TOKEN_SECONDS}

    def _person(self, came):
        token = came.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.issued or came.at - self.issued[token] > TOKEN_SECONDS + allowed(2):
            self.wrong.append(f"an old token: {token}")
        if len(self.people) > 5 and not self.refused_once:
            self.refused_once = token
        if token == self.refused_once:
            return 401, {"error": "revoked"}
        person = came.path.rpartition("/")[2]
        if came.method == "DELETE":
            if came.raw:
                self.wrong.append("a body of a DELETE")
            self.people[person] = False
            return 204, {}
        if came.headers.get("x-person") != came.body["email"]:
            self.wrong.append("another person in the header")
        if came.body["email"] == self.refused:
            return 422, {"message": "bad", "problems": [{"text": "the plan of nobody is unknown"}]}
        self.people[person] = True
        return 200, {}

    def _form(self, came):
        if came.headers["authorization"] != "Basic dXM6YS1wYXNzd29yZC1vZi1ub2JvZHk=":
            self.wrong.append("a password")
            return 401, {}
        form = {name: text for name, [text] in parse_qs(came.raw.decode()).items()}
        self.forms.append((form["email"], form["at"]))
        return 200, {}

    def _batch(self, came):
        events = came.body["events"]
        if not 0 < len(events) <= 50 or list(came.body) != ["events"]:
            self.wrong.append(f"{len(events)} events")
        refused = []
        for at, event in enumerate(events):
            if event["email"] == self.refused_in_a_batch:
                refused.append({"index": at, "message": "this one is on no list of ours"})
            else:
                inside = self.batches.setdefault(event["email"], {})
                inside[event["audience"]] = event["inside"]
        return 200, {"refused": refused}


def test_an_endpoint_of_its_own_kind_gets_all_that_happened_whatever_is_killed(tmp_path):
    happened, sent = invent(EVENTS, PEOPLE, seed=SEED)
    stand_in = StandIn(*_vips(happened)[:2])
    write_certificates(tmp_path)
    with Endpoint(stand_in.respond, server_context(tmp_path)) as endpoint:
        tables = TABLES.format(url=endpoint.url)
        with (
            Rig(tmp_path, more=tables, delivery_lines=LINES, templates=TEMPLATES) as rig,
            watched(rig),
        ):
            start_worker(rig)
            start_worker(rig)
            send(rig, lines(sent))
            _kill_workers(rig)
            until(lambda: status_of(rig)["waiting"] == 0, SECONDS)

            assert rig.memberships() == truth(happened)
            _everything_is_there(stand_in, endpoint, happened)
            _refusals_are_told_in_their_own_words(rig, stand_in)
    _tokens_were_renewed(stand_in)


def _vips(happened):
    """Return who is in the audience in the end."""
    return sorted(who for who, audiences in truth(happened).items() if "vip" in audiences)


def _kill_workers(rig):
    rng = random.Random(SEED)
    for _ in range(KILLS):
        time.sleep(rng.uniform(1.0, 2.0))
        kill_group(rig.workers[0])
        rig.start_worker(number=0)


def _told_of(wrong, endpoint, happened):
    """Return what happened to these people, and what the endpoint was told of them."""
    return {
        who: (
            [(event.time_us, event.is_exit) for event in happened if event.email == who],
            [
                (came.at, came.method, status)
                for came, status in endpoint.came
                if came.path == f"/people/{who.partition('@')[0]}"
            ],
        )
        for who in sorted(wrong)
    }


def _everything_is_there(stand_in, endpoint, happened):
    assert stand_in.wrong == []
    held = truth(happened)
    vips = set(_vips(happened))
    people = {f"{person}@example.com" for person, is_in in stand_in.people.items() if is_in}
    wrong = people ^ (vips - {stand_in.refused})
    assert not wrong, _told_of(wrong, endpoint, happened)
    listed = {
        who: sorted(audience for audience, is_in in inside.items() if is_in)
        for who, inside in stand_in.batches.items()
    }
    expected = {who: where for who, where in held.items() if who != stand_in.refused_in_a_batch}
    assert {who: where for who, where in listed.items() if where} == expected
    newest = {}
    for event in happened:
        if event.audience == "vip" and not event.is_exit:
            newest[event.email] = max(newest.get(event.email, 0), event.time_us)
    entered = {(who, _written(newest[who])) for who in vips}
    assert entered <= set(stand_in.forms)


def _written(time_us):
    """Return a time as the payload has it."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "000Z")


def _refusals_are_told_in_their_own_words(rig, stand_in):
    refused, in_a_batch = (
        rig.command("why", who).stdout.decode()
        for who in (stand_in.refused, stand_in.refused_in_a_batch)
    )

    assert "the plan of nobody is unknown" in refused
    assert "this one is on no list of ours" in in_a_batch
    dead = status_of(rig)["dead_by_reason"]
    assert set(dead) == {"refused"}


def _tokens_were_renewed(stand_in):
    assert stand_in.refused_once
    assert len(stand_in.asked) >= 2
    assert {form["scope"] for form in stand_in.asked} == {"people"}

"""`segrelay try` as a person calls it."""

import orjson
import pytest

from segrelay.worker.contract import keys
from segrelay.worker.errors import UsageWrong
from tests.configuration import endpoint, trigger
from tests.integration.ops.relay import ENTER, EXIT, READS_ID, payload


@pytest.fixture
def attempt(call, tmp_path):
    def run(one, *options, trigger="vip-enter"):
        file = tmp_path / "one.json"
        file.write_bytes(orjson.dumps(one))
        result = call("try", file, "--trigger", trigger, "--json", *options)
        return result.exit_code, orjson.loads(result.stdout)

    return run


def test_an_event_is_rendered_and_shaped_and_nothing_is_sent(attempt, sandbox, relay):
    code, found = attempt(payload("ann@example.com", first_name="Ann", phone="1234"))

    assert code == 0
    assert found["outcome"] == "would_be_sent"
    assert found["url"].endswith("/api/user/v1/upsert")
    assert found["rendered"]["users"][0]["attributes"]["name"] == "Ann"
    assert found["request"]["users"][0]["attributes"]["custom"] == {"lytics_computed_attr": ["vip"]}
    assert any("phone_number" in name for name in found["left_out"])
    relay.template("enter.jsonnet", "error 'no'")
    code, found = attempt(payload("ann@example.com"))
    assert (code, found["outcome"], found["reason"]) == (1, "would_be_dead", "template_error")
    assert sandbox.get("summary")["requests"]["total"] == 0
    assert relay.status()["accepted"] == 0


def test_what_can_not_be_tried_is_named(attempt):
    with pytest.raises(UsageWrong, match="no exit event, which vip-exit is for"):
        attempt(payload("ann@example.com"), trigger="vip-exit")
    with pytest.raises(UsageWrong, match="no trigger nowhere"):
        attempt(payload("ann@example.com"), trigger="nowhere")
    with pytest.raises(UsageWrong, match="no_identity"):
        attempt(payload(""))


def test_without_a_trigger_all_that_want_the_event_are_tried(call, tmp_path, relay):
    first = ENTER.replace('"*"', '"vip"')
    relay.configure(EXIT, triggers=first + first.replace("vip-enter", "vip-too"))
    file, other = tmp_path / "one.json", tmp_path / "other.json"
    file.write_bytes(orjson.dumps(payload("ann@example.com")))
    other.write_bytes(orjson.dumps(payload("ann@example.com", audience="unheard-of")))

    found = orjson.loads(call("try", file, "--json").stdout)

    assert [one["trigger"] for one in found] == ["vip-enter", "vip-too"]
    assert {one["outcome"] for one in found} == {"would_be_sent"}
    told = call("try", file).stdout
    assert "trigger: vip-enter" in told
    assert "trigger: vip-too" in told
    with pytest.raises(UsageWrong, match="no trigger wants"):
        call("try", other)


HIDDEN = "https://hooks.example.com/services/a-path-that-nobody-may-see"


@pytest.fixture
def other(relay, monkeypatch):
    """A relay whose trigger `other` leads to an endpoint that is not Insider."""

    def configured(**keys):
        monkeypatch.setenv("HOOK_URL", HIDDEN)
        relay.template("person.jsonnet", 'local e = import "lytemplates.libsonnet"; '
                       '{ email: e.get("email") }')  # fmt: skip
        relay.template("url.jsonnet", 'local e = import "lytemplates.libsonnet"; '
                       '"/people/" + std.split(e.get("email"), "@")[0]')  # fmt: skip
        crm = endpoint("crm", base_url="https://hooks.example.com")
        leads = {"destination": "crm", "audiences": ["*"], "template": "person.jsonnet"}
        relay.configure(crm, triggers=trigger("other", **leads, **keys))

    return configured


def test_url_headers_and_encoding_are_shown(attempt, other):
    header = {"X-Url": {"template": "url.jsonnet"}}
    other(url={"template": "url.jsonnet"}, http={"headers": header, "encoding": "form"})

    code, found = attempt(payload("ann@example.com"), trigger="other")

    assert code == 0
    assert (found["method"], found["url"]) == ("POST", "https://hooks.example.com/people/ann")
    assert found["headers"] == {"X-Url": "/people/ann"}
    assert found["request"] == "email=ann%40example.com"
    assert found["rendered"] == {"email": "ann@example.com"}


def test_a_secret_url_is_shown_nowhere(attempt, other, call):
    other(url="env:HOOK_URL")

    code, found = attempt(payload("ann@example.com"), trigger="other")
    printed = [
        call(*words).stdout for words in (("config", "show"), ("status",), ("config", "check"))
    ]

    assert (code, found["url"]) == (0, "env:HOOK_URL")
    assert "a-path-that-nobody-may-see" not in str(found) + "".join(printed)
    assert "triggers.other.url = env:HOOK_URL" in printed[0]


VIP_ID = "0123456789abcdef0123456789abcdef"


def test_an_event_gets_the_id_that_is_known_of_its_audience(attempt, relay):
    relay.template("enter.jsonnet", READS_ID)
    without = payload("ann@example.com")
    without["data"]["segment_events"][0].pop("id", None)

    dead = attempt(without)
    relay.client.hset(keys.AUDIENCES, VIP_ID, "vip")
    known = attempt(without)

    assert (dead[0], known[0]) == (1, 0)
    assert "enter.jsonnet:3: no such field: id" in dead[1]["message"]
    [user] = known[1]["request"]["users"]
    assert user["attributes"]["custom"] == {"id": VIP_ID}

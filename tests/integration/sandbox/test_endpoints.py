"""The sandbox as every destination: what it checks, what it answers, and its commands."""

import json

import httpx
import pytest

from segrelay.ops.config.commands import check_tokens
from segrelay.worker.errors import OperationsMustAct, UsageWrong
from tests.commands import called
from tests.configuration import settings_in, table
from tests.waiting import allowed, until

SWITCHES = {
    "token_endpoints": ["crm"],
    "token_seconds": allowed(2.0),
}


@pytest.fixture
def client(sandbox):
    sandbox.settings(**SWITCHES)
    with httpx.Client(base_url=sandbox.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def run(sandbox):
    return lambda *arguments: called("sandbox", *arguments, "--url", sandbox.url).output


def token(client, **form):
    given = {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"} | form
    return client.post("/_oauth2/token", data=given)


def test_an_endpoint_takes_only_a_token_that_the_sandbox_issued_and_that_is_good(client):
    issued = token(client).json()["access_token"]
    header = {"Authorization": f"Bearer {issued}"}

    taken = client.put("/to/crm/people/7", headers=header, json={"a": 1})
    as_parameter = client.get("/to/crm/x", params={"key": issued})
    without = client.put("/to/crm/people/7", headers={"Authorization": "Bearer other"})

    statuses = [one.status_code for one in (taken, as_parameter, without)]
    assert statuses == [200, 200, 401]
    until(lambda: client.put("/to/crm/people/7", headers=header, json={}).status_code == 401)
    assert token(client, client_secret="").status_code == 401
    assert token(client, grant_type="password").json() == {"error": "unsupported_grant_type"}


def test_what_came_is_kept_with_its_refusals_and_without_credentials(client, run):
    client.post("/to/crm/a?b=1", json={"c": 1}, headers={"Authorization": "Bearer of-nobody"})
    client.post("/to/other/form", data={"email": "ann@example.com"})

    found = json.loads(run("requests", "--json"))

    first, second = found["last"]
    assert (first["path"], first["query"], first["body"]) == ("/a", {"b": "1"}, {"c": 1})
    assert first["problem"] == "no header or parameter carries a token that is good"
    assert second["body"] == {"email": "ann@example.com"}
    assert found["by_endpoint"] == {"crm": {"401": 1}, "other": {"200": 1}}
    assert "of-nobody" not in json.dumps(found)
    assert "other: POST /form -> 200" in run("requests", "--destination", "other")


def test_the_sandbox_answers_as_it_is_told(client, run):
    gone = {"contains": "ann@", "status": 404, "body": "gone"}
    once = {"endpoint": "other", "status": 422, "body": {"message": "no"}, "times": 1}
    run("set", f"answers={json.dumps([gone, once])}")

    told = client.post("/to/other", json={"email": "bob@example.com"})
    after = client.post("/to/other", json={"email": "bob@example.com"})
    ann = client.post("/to/third", json={"email": "ann@example.com"})
    run("set", "answers=[]")

    assert (told.status_code, told.json()) == (422, {"message": "no"})
    assert after.status_code == 200
    assert (ann.status_code, ann.text) == (404, "gone")
    assert client.post("/to/third", json={"email": "ann@example.com"}).status_code == 200


def test_people_come_from_a_file_and_columns_are_a_switch(sandbox, run, tmp_path):
    people = tmp_path / "people.ndjson"
    people.write_text('{"_uid": "1", "segments": ["vip"], "email": "ann@example.com"}\n')

    assert "1 people added" in run("people", "add", str(people))
    assert [one["_uid"] for one in sandbox.get("lytics/members", audience="vip")] == ["1"]
    run("set", 'panel_attributes={"status": "string"}')
    assert sandbox.get("settings")["panel_attributes"] == {"status": "string"}


@pytest.mark.parametrize(
    ("given", "message"),
    [("latency_seconds", "write NAME=VALUE"), ("typo=1", "refuses it: .*typo: Extra inputs")],
)
def test_a_switch_that_is_none_is_named(sandbox, given, message):
    with pytest.raises(UsageWrong, match=message):
        called("sandbox", "set", given, "--url", sandbox.url)


def test_a_sandbox_that_is_not_there_is_named():
    with pytest.raises(OperationsMustAct, match="No sandbox answers at http://127"):
        called("sandbox", "requests", "--url", "http://127.0.0.1:9")


def test_a_live_check_gets_a_token_of_each_authorization(sandbox, tmp_path):
    login = {"type": "oauth2", "client_id": "us", "client_secret": "a-secret-of-nobody"}
    url = f"{sandbox.url}/_oauth2/token"
    crm = table("authorizations.crm", label="CRM", token_url=url, **login)
    settings = settings_in(tmp_path, crm)
    issued = sandbox.get("endpoints")["tokens"]

    assert list(check_tokens(settings)) == []
    sandbox.settings(credentials_status=401)
    [found] = check_tokens(settings)

    assert sandbox.get("endpoints")["tokens"] == issued + 1
    assert found == ("authorizations.crm", "authorizations.crm.token_url answers 401 (wrong key)")

"""The `http` tables: what they may hold, what is said about what they may not, what a trigger
changes."""

import pytest

from segrelay.worker.contract.settings import Destination, load_settings, sandboxed
from segrelay.worker.core.gate import gate_id
from segrelay.worker.destinations.http import HttpApi
from segrelay.worker.destinations.registry import api_of
from segrelay.worker.errors import ConfigurationInvalid

TEXT = """\
[authorizations.crm]
headers = { Authorization = "Bearer x" }
[destinations.crm]
api = "http"
base_url = "https://crm.example.com/v1"
authorization = "crm"
rate = "10/s"
[destinations.crm.http]
method = "PUT"
headers = { Content-Type = "application/vnd.api+json" }
networks = ["10.1.0.0/16"]
success = ["2xx", 304]
[triggers.enter]
destination = "crm"
audiences = ["vip"]
on = "enter"
template = "t.jsonnet"
url = "/people"
[triggers.exit]
destination = "crm"
audiences = ["vip"]
on = "exit"
template = "t.jsonnet"
url = "https://crm.example.com/gone"
http = { method = "DELETE", success = ["2xx", 404] }
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
rate = "10/s"
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "t.jsonnet").write_text("{}")

    def loaded(*changes):
        text = TEXT
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / "segrelay.toml").write_text(text)
        return load_settings(tmp_path / "segrelay.toml", environ={})

    return loaded


def test_a_trigger_changes_what_it_sets_and_nothing_else(load):
    settings = load()

    enter = api_of(settings, settings.triggers["enter"])
    leave = api_of(settings, settings.triggers["exit"])

    assert isinstance(enter, HttpApi)
    assert isinstance(leave, HttpApi)
    assert (enter.method, enter.requests.success) == ("PUT", ("2xx", "304"))
    assert (leave.method, leave.requests.success) == ("DELETE", ("2xx", "404"))
    assert leave.requests.headers == {"Content-Type": "application/vnd.api+json"}
    assert leave.networks == ("10.1.0.0/16",)


CASES = {
    'method = "PUT"|metod = "PUT"': "http.metod: unknown key — did you mean 'method'?",
    "304]|99]": 'http.success[1]: is not a status — write it as 404, or "2xx" for all that begin'
    " with 2",
    "Content-Type|Content-Length": "http.headers.Content-Length: is set by segrelay itself",
    "Content-Type|Authorization": "http.headers.Authorization: stands in the authorization too",
    '"application/vnd.api+json"|"env:TOKEN"': "http.headers.Content-Type: names a secret,"
    " which is not understood here — put it into an authorization's headers",
    "10.1.0.0/16|10.1.0.1/16": "http.networks[0]: '10.1.0.1/16' is not a network — write it as"
    ' "10.1.0.0/16" (10.1.0.1/16 has host bits set)',
    "https://crm.example.com/v1|http://127.0.0.1:9": "base_url: leads to this machine itself —"
    ' allow it in [destinations.crm.http] with networks = ["127.0.0.0/8"]',
    "https://crm.example.com/v1|https://localhost": "base_url: leads to this machine itself —"
    ' allow it in [destinations.crm.http] with networks = ["127.0.0.0/8"]',
    "https://crm.example.com/v1|https://10.9.8.7": "base_url: leads to a private or reserved"
    ' address — allow it in [destinations.crm.http] with networks = ["10.9.8.7"]',
    '[destinations.crm]|[destinations.crm]\nverify_every = "5m"': "verify_every: is for"
    ' destinations with api = "insider" only',
}


@pytest.mark.parametrize(("change", "says"), CASES.items())
def test_what_can_not_be_is_named_with_its_place(load, change, says):
    with pytest.raises(ConfigurationInvalid) as caught:
        load(*change.split("|"))

    assert f"segrelay.toml: destinations.crm.{says}" in str(caught.value).splitlines()


@pytest.mark.parametrize("table", ["destinations.insider", "triggers.i"])
def test_insider_has_no_http_table(load, table):
    trigger = '[triggers.i]\ndestination = "insider"\naudiences = ["*"]\non = "enter"\n'
    trigger += 'template = "t.jsonnet"\nurl = "/api/user/v1/upsert"\n'

    with pytest.raises(ConfigurationInvalid) as caught:
        load("[destinations.crm.http]", f'{trigger}[{table}.http]\nmethod = "PUT"\n'
             "[destinations.crm.http]")  # fmt: skip

    assert f'{table}.http: is for destinations with api = "http" only' in str(caught.value)


def test_a_sandbox_run_reaches_this_machine_and_no_other(load):
    settings = sandboxed(load(), "http://127.0.0.1:8900")

    api = api_of(settings, settings.triggers["exit"])

    assert api.networks == ("127.0.0.0/8", "::1/128")
    assert settings.url_of(settings.triggers["exit"]) == "http://127.0.0.1:8900/to/crm/gone"


def test_destinations_on_one_host_share_a_gate_if_they_share_the_authorization():
    def gate(name, authorization, path=""):
        one = Destination(
            name=name,
            api="http",
            base_url=f"https://crm.example.com{path}",
            authorization=authorization,
            rate="10/s",
        )
        return gate_id(one.base_url, one.gate_scope)

    assert gate("crm", "crm", "/v1") == gate("crm-too", "crm", "/v2")
    assert len({gate("crm", "crm"), gate("open", ""), gate("open-too", "")}) == 3


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('failures = { at = "errors", value = "id" }',
         'failures.value: needs the key of a result that holds it too — write of = "email"'),
        ('failures = { of = "email", index = "at" }',
         "failures.index: tells positions, but of tells values: one of them has to go"),
        ('failures = { succeeded = ["ok"] }',
         "failures.succeeded: needs a field whose values these are"),
        ('encoding = "ndjson"\nenvelope = "events"', "envelope: can't hold lines of JSON"),
        ('refuse = ["no"]', "refuse[0]: is not a status"),
    ],
)  # fmt: skip
def test_contradictions_in_what_an_answer_says_and_a_request_carries_are_named(load, lines, says):
    with pytest.raises(ConfigurationInvalid) as caught:
        load('method = "PUT"', f'method = "PUT"\n{lines}')

    assert f".http.{says}" in str(caught.value)

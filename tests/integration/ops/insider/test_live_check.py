"""`segrelay config check --live` as a person calls it."""

import orjson
import pytest


@pytest.fixture
def check(call):
    def run():
        result = call("config", "check", "--live", "--json")
        return result.exit_code, orjson.loads(result.stdout)

    return run


def test_a_panel_that_knows_what_is_sent_once_it_is_made_right_is_right(check):
    code, found = check()

    assert (code, found["valid"], found["problems"]) == (0, True, [])
    assert not [warning for warning in found["warnings"] if "in Insider's panel" in warning]


def test_an_undefined_list_of_audiences_is_a_problem(check, sandbox):
    sandbox.settings(panel_attributes={"status": "string"})

    code, found = check()

    assert code == 2
    assert any("triggers.vip-enter: attribute lytics_computed_attr" in p for p in found["problems"])
    assert any("triggers.vip-exit: attribute lytics_computed_attr" in p for p in found["problems"])


def test_other_attributes_and_events_are_warned_of(check, sandbox):
    sandbox.settings(
        panel_attributes={"lytics_computed_attr": "array", "status": "number"}, panel_events={}
    )

    code, found = check()
    warnings = "\n".join(found["warnings"])

    assert code == 0
    assert "event lytics_trigger is not defined" in warnings
    assert "status is a number in Insider's panel, the template sends a text" in warnings


def test_refused_credentials_are_a_problem(check, sandbox):
    sandbox.settings(credentials_status=403)

    code, found = check()

    assert code == 2
    assert "refuses the authorization 'Sandbox'" in found["problems"][0]
    assert "secret-token" not in orjson.dumps(found).decode()
    assert "/api/user/v3/metadata/columns: check the partner name" in found["problems"][0]


@pytest.mark.parametrize(
    ("status", "advice"), [(502, "try again in some minutes"), (404, "insider.base_url")]
)
def test_an_odd_answer_is_told_with_its_url_and_what_to_do(check, sandbox, status, advice):
    sandbox.settings(failures=[{"status": status, "path": "/api/user/v3/metadata/columns"}])
    try:
        code, found = check()
    finally:
        sandbox.settings(failures=[])

    assert code == 2
    assert f"{sandbox.url}/api/user/v3/metadata/columns answered {status}" in found["problems"][0]
    assert advice in found["problems"][0]


def test_nobody_there_is_told_with_the_url_the_cause_and_what_to_do(check, relay):
    path = relay.settings.source
    path.write_text(path.read_text().replace(relay.settings.destinations["insider"].base_url,
                                             "http://127.0.0.1:9"))  # fmt: skip

    code, found = check()

    assert code == 2
    for told in ("http://127.0.0.1:9/api/user/v3/metadata/columns", "refused", "base_url"):
        assert told in found["problems"][0]

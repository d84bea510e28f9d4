"""`segrelay config check --live` as a person calls it."""

import orjson
import pytest

from segrelay.ops.insider import check_live


def test_a_panel_is_right_if_it_knows_what_is_sent_and_not_without_the_list(call, sandbox):
    def check():
        result = call("config", "check", "--live", "--json")
        return result.exit_code, orjson.loads(result.stdout)

    code, found = check()
    sandbox.settings(panel_attributes={"status": "string"})
    failed, undefined = check()

    assert (code, found["valid"], found["problems"]) == (0, True, [])
    assert not [warning for warning in found["warnings"] if "in Insider's panel" in warning]
    assert failed == 2
    for name in ("vip-enter", "vip-exit"):
        said = f"triggers.{name}: attribute lytics_computed_attr"
        assert any(said in problem for problem in undefined["problems"])


COLUMNS = "/api/user/v3/metadata/columns"


@pytest.mark.parametrize(
    ("switches", "severity", "said"),
    [
        ({"panel_events": {}}, "warning", "event lytics_trigger is not defined"),
        (
            {"panel_attributes": {"lytics_computed_attr": "array", "status": "number"}},
            "warning",
            "status is a number in Insider's panel, the template sends a text",
        ),
        ({"credentials_status": 403}, "error", "refuses the authorization 'Sandbox'"),
        ({"credentials_status": 403}, "error", f"{COLUMNS}: check the partner name"),
        ({"failures": [{"status": 502, "path": COLUMNS}]}, "error", f"{COLUMNS} answered 502"),
        ({"failures": [{"status": 502, "path": COLUMNS}]}, "error", "try again in some minutes"),
        ({"failures": [{"status": 404, "path": COLUMNS}]}, "error", "insider.base_url"),
    ],
)
def test_what_is_wrong_at_insider_is_told_with_what_to_do(relay, sandbox, switches, severity, said):
    sandbox.settings(**switches)

    found = list(check_live(relay.settings))

    assert [one.message for one in found if one.severity == severity and said in one.message]
    assert {one.severity for one in found} == {severity}
    assert "secret-token" not in str(found)


def test_nobody_there_is_told_with_the_url_the_cause_and_what_to_do(relay, sandbox):
    relay.change((sandbox.url, "http://127.0.0.1:9"))

    [found] = check_live(relay.settings)

    for told in (f"http://127.0.0.1:9{COLUMNS}", "refused", "base_url"):
        assert told in found.message

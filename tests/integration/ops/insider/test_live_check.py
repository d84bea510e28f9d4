"""`segrelay config check --live` and `template check --live` as a person calls them."""

import orjson
import pytest

from segrelay.ops.main import app


@pytest.fixture
def check(call):
    def run():
        result = call(app, "config", "check", "--live", "--json")
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


@pytest.fixture
def check_templates(call):
    def run(*names):
        result = call(app, "template", "check", *names, "--live", "--json")
        document = orjson.loads(result.stdout)
        found = [one for each in document["templates"] for one in each["findings"]]
        return result.exit_code, document, found

    return run


def test_a_template_is_told_where_it_sends_what_the_panel_drops(check_templates, relay, sandbox):
    sandbox.settings(
        panel_attributes={"lytics_computed_attr": "array", "plan": "number"}, panel_events={}
    )
    relay.template(
        "enter.jsonnet",
        """local event = import 'lytemplates.libsonnet';
{ users: [{
  identifiers: { email: event.get('email') },
  attributes: { custom: {
    lytics_computed_attr: [event.segSlug()],
    plann: 'gold',
    plan: 'gold',
  } },
  events: [{
    event_name: 'joined',
    timestamp: event.get('segment_events')[0].enter,
  }],
}] }
""",
    )

    code, _, found = check_templates("enter")

    assert code == 0
    assert [(one["line"], one["column"], one["message"].split(":")[0]) for one in found] == [
        (6, 5, "attribute plann is not defined in Insider's panel"),
        (7, 5, "attribute plan is a number in Insider's panel, the template sends a text"),
        (10, 5, "event joined is not defined in Insider's panel"),
    ]
    assert found[0]["message"].endswith("did you mean plan?.")


def test_an_undefined_list_of_audiences_makes_a_template_unfit(check_templates, sandbox):
    sandbox.settings(panel_attributes={"status": "string"})

    code, document, _ = check_templates()

    assert code == 2
    assert [one["fit"] for one in document["templates"]] == [False, False]


def test_a_panel_that_gives_no_answer_is_told_and_the_rest_checked(check_templates, sandbox):
    sandbox.settings(credentials_status=403)

    code, document, _ = check_templates()

    assert code == 1
    assert "refuses the authorization 'Sandbox'" in document["live"]["unanswered"]["insider"]
    assert all(one["fit"] for one in document["templates"])


def test_a_template_that_no_trigger_uses_is_named(check_templates, relay):
    relay.template("other.jsonnet", relay.shipped("enter.jsonnet"))

    assert check_templates("other")[1]["live"]["unused"] == ["other.jsonnet"]
